//! Where an agent is found, read from a configuration that need not be right otherwise.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, Deserializer};

use super::{Config, ConfigError, HttpConfig, Problems, base, read};

/// What is needed to ask an agent how it is. One that runs keeps the configuration that it has when the
/// file is spoilt, and is still asked at the place that the file names.
#[derive(Debug, Clone, PartialEq)]
pub struct Place {
    /// Its data folder.
    pub data_dir: PathBuf,
    /// Its local HTTP port.
    pub listen: SocketAddr,
    /// What is wrong with the file; none when all of it is right.
    pub problems: Option<Problems>,
}

/// The keys that count. Others are not looked at.
#[derive(Deserialize)]
struct Part {
    data_dir: PathBuf,
    #[serde(default)]
    http: Http,
}

#[derive(Deserialize)]
#[serde(default)]
struct Http {
    listen: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: HttpConfig::default().listen }
    }
}

impl Place {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, or is so wrong that it names no place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, base(path))
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// Finds the place in the text of a configuration whose paths are relative to `base`.
    ///
    /// # Errors
    /// All [`Problems`] of the text, when it names no place.
    pub fn parse(text: &str, base: &Path) -> Result<Self, Problems> {
        let problems = match Config::parse(text, base) {
            Ok(config) => {
                let (data_dir, listen) = (config.data_dir, config.http.listen);
                return Ok(Self { data_dir, listen, problems: None });
            }
            Err(problems) => problems,
        };
        // The lines that cannot be parsed are left out.
        let (table, _) = DeTable::parse_recoverable(text);
        match Part::deserialize(Deserializer::from(table)) {
            Ok(Part { data_dir, http: Http { listen } })
                if listen.ip().is_loopback() && !data_dir.as_os_str().is_empty() =>
            {
                Ok(Self { data_dir: base.join(data_dir), listen, problems: Some(problems) })
            }
            _ => Err(problems),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHT: &str = "data_dir = 'd'\n[source]\nkind = 'idx'\nimages = 'i'\nrate_hz = 1\n\
                         [http]\nlisten = '127.0.0.1:9999'\n";

    fn parse(text: &str) -> Result<Place, Problems> {
        Place::parse(text, Path::new("/etc"))
    }

    #[test]
    fn a_spoilt_file_says_where_the_agent_is_and_what_is_wrong() {
        let right = parse(RIGHT).unwrap();
        assert_eq!(
            (right.data_dir.as_path(), right.problems.as_ref()),
            (Path::new("/etc/d"), None)
        );
        for (spoilt, says) in [
            (RIGHT.replace("rate_hz = 1", "rate_hz = 0"), "rate_hz"),
            (RIGHT.replace("rate_hz = 1", "rate_hz = 'often'"), "expected f64"),
            (RIGHT.replace("rate_hz = 1", "rate_hz ="), "line 5"),
            (RIGHT.replace("rate_hz = 1", "rate_hz = 1\ncolour = 2"), "colour"),
            (format!("{RIGHT}port = 1\n"), "http.port"),
            (format!("{RIGHT}[outbox\n"), "line 8"),
        ] {
            let place = parse(&spoilt).unwrap();
            let problems = place.problems.clone().unwrap().to_string();
            assert!(problems.contains(says), "{problems}");
            assert_eq!(Place { problems: None, ..place }, right, "{spoilt}");
        }
    }

    #[test]
    fn the_usual_port_is_meant_where_none_is_named() {
        let place = parse("data_dir = '/d'\nrate_hz = 0").unwrap();
        assert_eq!(place.data_dir, Path::new("/d"));
        assert_eq!(place.listen, HttpConfig::default().listen);
    }

    #[test]
    fn a_file_that_names_no_place_and_one_elsewhere_are_errors() {
        let elsewhere = RIGHT.replace("127.0.0.1", "192.0.2.1");
        let unnamed = RIGHT.replace("data_dir = 'd'", "");
        for text in ["", "data_dir = ''", "data_dir = 1", "data_dir = [", &elsewhere, &unnamed] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
