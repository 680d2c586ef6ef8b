//! `fleet-hub drift`

use fleetloop_observe::output::Output;
use fleetloop_protocol::api::drift::FleetDrift;
use fleetloop_protocol::drift::{Against, Drift, Finding, Measure};

use super::client::{Client, query};
use super::resolve;
use super::table::Table;

/// What to compare.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// One device only: its id, the beginning of it, or its name.
    #[arg(long)]
    device: Option<String>,
    /// One model only: its digest, the beginning of it, or name/version.
    #[arg(long)]
    model: Option<String>,
    /// How many hours, the present one among them.
    #[arg(long, default_value_t = 24)]
    hours: u32,
}

/// Runs the command.
///
/// # Errors
/// The hub was not reached or refused.
pub async fn run(client: &Client, output: Output, args: Args) -> anyhow::Result<()> {
    let model = match args.model {
        Some(text) => Some(resolve::bundle(client, &text).await?),
        None => None,
    };
    let device = match args.device {
        Some(text) => Some(resolve::device(client, &text).await?),
        None => None,
    };
    let query = query(&[
        ("device", device.map(|device| device.to_string())),
        ("model", model.map(|model| model.to_string())),
        ("hours", Some(args.hours.to_string())),
    ]);
    let found: FleetDrift = client.get("compare", &format!("/drift{query}")).await?;
    output.print(&found, show)
}

fn show(found: &FleetDrift) -> String {
    let mut table = Table::new(&[
        "model", "device", "feature", "verdict", "#PSI", "#chance", "#KS", "#chance", "#frames",
        "against",
    ]);
    for model in &found.models {
        let mut rows = |device: &str, drift: &Drift| {
            for finding in &drift.features {
                table.row(row(&model.name, device, finding, model.against));
            }
        };
        let all = model.left_out.as_ref().map_or("all".into(), |id| format!("all but {id}"));
        rows(&all, &model.fleet);
        model.devices.iter().for_each(|one| rows(one.device.as_str(), &one.drift));
    }
    let nothing = format!(
        "no device sent telemetry of a model that this hub holds within {} hours",
        found.hours
    );
    table.render(&nothing)
}

fn row(model: &str, device: &str, finding: &Finding, against: Against) -> [String; 10] {
    let figure = |measure: Option<Measure>, of: fn(Measure) -> f64| {
        measure.map_or("-".to_owned(), |measure| format!("{:.3}", of(measure)))
    };
    [
        model.to_owned(),
        device.to_owned(),
        finding.feature.as_str().to_owned(),
        finding.verdict.as_str().to_owned(),
        figure(finding.psi, |m| m.found),
        figure(finding.psi, |m| m.chance),
        figure(finding.ks, |m| m.found),
        figure(finding.ks, |m| m.chance),
        finding.recent_frames.to_string(),
        format!("{} of {}", against.as_str(), finding.reference_frames),
    ]
}

#[cfg(test)]
mod tests {
    use fleetloop_protocol::api::drift::{DeviceDrift, ModelDrift};
    use fleetloop_protocol::drift::compare;
    use fleetloop_protocol::sketch::{Observation, Sketch};
    use fleetloop_protocol::{BundleDigest, Digest};

    use super::*;

    fn frames(brightness: f32) -> Sketch {
        let mut sketch = Sketch::default();
        for _ in 0..600 {
            sketch.add(&Observation {
                classes: 2,
                class: 0,
                confidence: 0.9,
                brightness,
                contrast: 0.1,
            });
        }
        sketch
    }

    #[test]
    fn every_feature_has_a_line_for_the_fleet_and_for_each_device() {
        let drift = compare(&frames(0.5), &frames(0.1));
        let device = DeviceDrift { device: "dev-1".parse().unwrap(), drift: drift.clone() };
        let model = BundleDigest(Digest::ZERO);
        let (name, against) = ("garments/2".to_owned(), Against::Bundle);
        let models = vec![ModelDrift {
            model,
            name,
            against,
            fleet: drift,
            left_out: None,
            devices: vec![device],
        }];
        let text = show(&FleetDrift { hours: 24, models });
        assert_eq!(text.lines().count(), 1 + 2 * 4, "{text}");
        let line = text.lines().find(|line| line.contains("brightness")).unwrap();
        for part in ["garments/2", "all", "drifted", "1.000", "600", "bundle of 600"] {
            assert!(line.contains(part), "{text}");
        }
        assert!(show(&FleetDrift { hours: 3, models: vec![] }).contains("within 3 hours"));
    }
}
