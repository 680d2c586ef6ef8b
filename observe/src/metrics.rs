//! `GET /metrics`: a status in Prometheus' words.
//!
//! Nothing is counted here. Every number is read from a program's status at the moment it is asked for,
//! and `prometheus-client` writes it down: a facade with a recorder of its own would count everything a
//! second time. Format: OpenMetrics text 1.0, which Prometheus reads by its content type.
//!
//! A program's list of [`Metric`]s is all there is; its manual holds it as a table ([`Metrics::manual`]).

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Labels and a value, one for each series; none where there is nothing to say.
pub type Points = Vec<(Vec<(&'static str, String)>, u64)>;

/// How values are distributed.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Upper bounds, ascending, the last infinite; and the values up to each that no lower one holds.
    pub buckets: Vec<(f64, u64)>,
    /// How many values there are.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
}

/// How a metric behaves, and where it is read from a status `S`.
enum Kind<S> {
    Counter(fn(&S) -> Points),
    Gauge(fn(&S) -> Points),
    Histogram(fn(&S) -> &Distribution),
}

/// A metric of a status `S`.
pub struct Metric<S> {
    name: &'static str,
    /// Its unit, by its name.
    pub unit: Option<&'static str>,
    /// What it says.
    pub help: &'static str,
    kind: Kind<S>,
}

/// A number that only grows, but for a restart.
pub const fn counter<S>(
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    read: fn(&S) -> Points,
) -> Metric<S> {
    Metric { name, unit, help, kind: Kind::Counter(read) }
}

/// A number that comes and goes.
pub const fn gauge<S>(
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    read: fn(&S) -> Points,
) -> Metric<S> {
    Metric { name, unit, help, kind: Kind::Gauge(read) }
}

/// How values are distributed.
pub const fn histogram<S>(
    name: &'static str,
    unit: Option<&'static str>,
    help: &'static str,
    read: fn(&S) -> &Distribution,
) -> Metric<S> {
    Metric { name, unit, help, kind: Kind::Histogram(read) }
}

/// The metrics of a program.
pub struct Metrics<S: 'static> {
    /// What every name begins with.
    pub prefix: &'static str,
    /// All of them, in the order in which they are shown.
    pub all: &'static [Metric<S>],
}

/// A value without labels.
pub fn one(value: u64) -> Points {
    vec![(Vec::new(), value)]
}

/// A value for each name of a label.
pub fn by<N: AsRef<str>>(
    label: &'static str,
    values: impl IntoIterator<Item = (N, u64)>,
) -> Points {
    let series = |(name, value): (N, u64)| (vec![(label, name.as_ref().to_owned())], value);
    values.into_iter().map(series).collect()
}

impl<S> Kind<S> {
    /// Its name in manuals.
    const fn name(&self) -> &'static str {
        match self {
            Self::Counter(_) => "counter",
            Self::Gauge(_) => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

impl<S: fmt::Debug + Send + Sync + 'static> Metrics<S> {
    /// What `status` says, as OpenMetrics text.
    ///
    /// # Errors
    /// None in practice: writing to a text does not fail.
    pub fn text(&self, status: S) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix(self.prefix);
        registry.register_collector(Box::new(Snapshot { all: self.all, status }));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl<S> Metrics<S> {
    /// The name as a query names it.
    pub fn full_name(&self, metric: &Metric<S>) -> String {
        let unit = metric.unit.map(|unit| format!("_{unit}")).unwrap_or_default();
        let total = if matches!(metric.kind, Kind::Counter(_)) { "_total" } else { "" };
        format!("{}_{}{unit}{total}", self.prefix, metric.name)
    }

    /// A line of a manual's table for each.
    pub fn manual(&self) -> Vec<String> {
        let line = |metric: &Metric<S>| {
            let name = self.full_name(metric);
            format!("| `{name}` | {} | {} |", metric.kind.name(), metric.help)
        };
        self.all.iter().map(line).collect()
    }
}

/// What a scrape shows.
struct Snapshot<S: 'static> {
    all: &'static [Metric<S>],
    status: S,
}

impl<S: fmt::Debug> fmt::Debug for Snapshot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Snapshot").field(&self.status).finish()
    }
}

impl<S: fmt::Debug + Send + Sync> Collector for Snapshot<S> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Metric { name, unit, help, kind } in self.all {
            let (shown, points) = match kind {
                Kind::Counter(read) => (MetricType::Counter, read(&self.status)),
                Kind::Gauge(read) => (MetricType::Gauge, read(&self.status)),
                Kind::Histogram(_) => (MetricType::Histogram, Points::new()),
            };
            if points.is_empty() && !matches!(kind, Kind::Histogram(_)) {
                continue;
            }
            let unit = unit.map(|unit| Unit::Other(unit.to_owned()));
            let mut series = encoder.encode_descriptor(name, help, unit.as_ref(), shown)?;
            if let Kind::Histogram(read) = kind {
                let Distribution { buckets, count, sum } = read(&self.status);
                series.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?;
            }
            for (labels, value) in &points {
                point(&mut series, shown, labels, *value)?;
            }
        }
        Ok(())
    }
}

/// Writes one value; a series without labels has no braces, which some readers do not take.
fn point(
    series: &mut MetricEncoder<'_>,
    shown: MetricType,
    labels: &[(&'static str, String)],
    value: u64,
) -> fmt::Result {
    if !labels.is_empty() {
        return point(&mut series.encode_family(&labels)?, shown, &[], value);
    }
    match shown {
        MetricType::Counter => series.encode_counter::<NoLabelSet, u64, f64>(&value, None),
        _ => series.encode_gauge(&value),
    }
}

#[cfg(test)]
mod tests {
    use prometheus_parse::{LineInfo, Scrape, Value};

    use super::*;

    #[derive(Debug)]
    struct Oven {
        loaves: u64,
        heat: Option<u64>,
        baked: Distribution,
    }

    const OVEN: Metrics<Oven> = Metrics {
        prefix: "bakery_oven",
        all: &[
            counter("loaves", None, "loaves baked, by flour", |oven| {
                by("flour", [("rye", oven.loaves), ("wheat", 0)])
            }),
            gauge("heat", Some("celsius"), "how hot it is", |oven| {
                oven.heat.map(one).unwrap_or_default()
            }),
            histogram("baking", Some("seconds"), "how long a loaf took", |oven| &oven.baked),
        ],
    };

    fn oven(heat: Option<u64>) -> Oven {
        let buckets = vec![(60.0, 1), (f64::INFINITY, 2)];
        Oven { loaves: 3, heat, baked: Distribution { buckets, count: 3, sum: 250.0 } }
    }

    fn read(text: &str, name: &str) -> Vec<Value> {
        let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap();
        let found = scrape.samples.into_iter().filter(|sample| sample.metric == name);
        found.map(|sample| sample.value).collect()
    }

    #[test]
    fn an_independent_parser_reads_every_line_and_finds_every_value() {
        let text = OVEN.text(oven(Some(220))).unwrap();
        assert!(text.ends_with("# EOF\n"), "{text}");
        for line in text.lines().filter(|l| !l.starts_with("# UNIT") && *l != "# EOF") {
            assert_ne!(LineInfo::parse(line), LineInfo::Ignored, "{line}");
        }
        assert!(text.contains("# HELP bakery_oven_heat_celsius how hot it is\n"), "{text}");
        assert!(text.contains("# TYPE bakery_oven_loaves counter\n"), "{text}");
        assert!(text.contains("# UNIT bakery_oven_baking_seconds seconds\n"), "{text}");
        assert!(text.contains("bakery_oven_loaves_total{flour=\"rye\"} 3\n"), "{text}");
        assert!(text.contains("\nbakery_oven_heat_celsius 220\n"), "{text}");
        assert!(text.contains("bakery_oven_baking_seconds_count 3\n"), "{text}");
        assert_eq!(read(&text, "bakery_oven_heat_celsius"), [Value::Gauge(220.0)]);
    }

    #[test]
    fn what_has_nothing_to_say_is_not_shown() {
        let text = OVEN.text(oven(None)).unwrap();
        assert!(!text.contains("bakery_oven_heat"), "{text}");
    }

    #[test]
    fn a_manual_has_a_line_for_each() {
        let lines = OVEN.manual();
        assert_eq!(lines[0], "| `bakery_oven_loaves_total` | counter | loaves baked, by flour |");
        assert_eq!(lines[2], "| `bakery_oven_baking_seconds` | histogram | how long a loaf took |");
    }
}
