//! Whether a window of telemetry can be true: what a device could have answered, and counts that agree.
//!
//! A window that cannot be true does not count towards drift. It is a finding of the device, and the
//! device's last telemetry on the page all the same: that is what the device said. Pure.

use fleetloop_protocol::limits::SOURCE_RATE_HZ;
use fleetloop_protocol::sketch::{Sketch, total};
use fleetloop_protocol::telemetry::Telemetry;

/// The most seconds of windows of one device and model that count in one hour of the hub's: twice the
/// hour, for a device sends what waited while it was offline.
pub const SECONDS_AN_HOUR: u64 = 2 * 3600;

/// The longest window, in seconds: a day, the longest that an agent can be told to count for, and a
/// minute, for it may be late.
pub const WINDOW_S: u32 = 86_460;

/// Why a window cannot be true; none when it can. A model that the hub holds has `labels` labels.
pub fn implausible(window: &Telemetry, labels: Option<usize>) -> Option<String> {
    let sketch = &window.sketch;
    let frames = sketch.frames();
    if window.window_s > WINDOW_S {
        return Some(format!("a window of {} s, the longest has {WINDOW_S}", window.window_s));
    }
    let possible = (u64::from(window.window_s) + 1).saturating_mul(u64::from(SOURCE_RATE_HZ));
    if frames > possible {
        return Some(format!(
            "{frames} frames in {} s, and a source has at most {SOURCE_RATE_HZ} a second",
            window.window_s
        ));
    }
    if frames > window.frames_answered {
        let answered = window.frames_answered;
        return Some(format!("{frames} frames in a window, {answered} answered since start"));
    }
    if let Some((name, counted)) = uneven(sketch) {
        return Some(format!("{counted} frames by {name}, {frames} by confidence"));
    }
    let classes = sketch.classes.len();
    labels
        .filter(|labels| classes > *labels)
        .map(|labels| format!("answers of {classes} classes, the model has {labels}"))
}

/// A feature that counts other frames than the confidence does. One that is not measured counts none.
fn uneven(sketch: &Sketch) -> Option<(&'static str, u64)> {
    let frames = sketch.frames();
    [
        ("class", total(&sketch.classes)),
        ("brightness", sketch.brightness.total()),
        ("contrast", sketch.contrast.total()),
    ]
    .into_iter()
    .find(|(_, counted)| *counted != 0 && *counted != frames)
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::sketch::Observation;

    use super::*;

    fn window(frames: u64) -> Telemetry {
        let mut sketch = Sketch::default();
        for n in 0..frames {
            let (classes, class) = (2, n as usize % 2);
            let (confidence, brightness, contrast) = (0.9, 0.5, 0.2);
            sketch.add(&Observation { classes, class, confidence, brightness, contrast });
        }
        Telemetry { window_s: 60, frames_answered: frames, sketch, ..Telemetry::default() }
    }

    /// Sets the counts of one feature, as a device would that invents them.
    fn counts<const N: usize>(first: u64) -> fleetloop_protocol::sketch::Histogram<N> {
        let mut counts = vec![0; N];
        counts[0] = first;
        counts.try_into().unwrap()
    }

    #[test]
    fn what_a_device_answered_is_plausible() {
        for frames in [0, 1, 600] {
            assert_eq!(implausible(&window(frames), Some(2)), None);
            assert_eq!(implausible(&window(frames), None), None);
        }
        let mut unmeasured = window(10);
        unmeasured.sketch.brightness = counts(0);
        unmeasured.sketch.classes.clear();
        assert_eq!(implausible(&unmeasured, Some(2)), None);
    }

    #[test]
    fn a_billion_frames_in_a_minute_are_not() {
        let billion = 1_000_000_000;
        let mut forged = window(0);
        forged.frames_answered = billion;
        forged.sketch.confidence = counts(billion);
        let why = implausible(&forged, Some(2)).unwrap();
        assert!(why.contains("1000000000 frames in 60 s"), "{why}");
        forged.window_s = u32::MAX;
        assert!(implausible(&forged, Some(2)).unwrap().contains("the longest has"));
    }

    #[test]
    fn counts_that_contradict_each_other_are_not() {
        let more = |change: fn(&mut Telemetry)| {
            let mut forged = window(600);
            change(&mut forged);
            implausible(&forged, Some(2)).unwrap()
        };
        assert!(more(|w| w.frames_answered = 599).contains("599 answered"));
        assert!(more(|w| w.sketch.classes[1] = 1_000_000).contains("by class"));
        assert!(more(|w| w.sketch.brightness = counts(601)).contains("by brightness"));
        assert!(more(|w| w.sketch.contrast = counts(1)).contains("by contrast"));
        assert!(more(|w| w.sketch.classes.resize(3, 0)).contains("the model has 2"));
    }
}
