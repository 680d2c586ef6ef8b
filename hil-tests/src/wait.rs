//! Waiting for what other processes do.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

/// Looks every `every` until `look` finds something, `limit` at most. An error of `look` counts as
/// nothing found, for what is asked may just be starting again; the last one is told at the end.
///
/// # Errors
/// When nothing was found within `limit`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    every: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let found = look();
        if let Ok(Some(found)) = found {
            return Ok(found);
        }
        if begun.elapsed() >= limit {
            let waited = format!("waited {} s for {what} in vain", limit.as_secs());
            return match found {
                Err(error) => Err(error).context(waited),
                _ => Err(anyhow!(waited)),
            };
        }
        std::thread::sleep(every);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_on_the_way_do_not_end_the_wait_and_the_last_one_is_told() {
        let mut left = 3;
        let found = until("it", Duration::from_secs(60), Duration::ZERO, || {
            left -= 1;
            if left > 0 { Err(anyhow!("not yet")) } else { Ok(Some(7)) }
        });
        assert_eq!(found.unwrap(), 7);
        let missed: Result<()> =
            until("it", Duration::ZERO, Duration::ZERO, || Err(anyhow!("no hub")));
        let text = format!("{:#}", missed.unwrap_err());
        assert!(text.contains("for it in vain") && text.contains("no hub"), "{text}");
    }
}
