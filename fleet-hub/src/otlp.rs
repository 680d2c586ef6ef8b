//! A sample's road as OTLP spans, for a collector that the configuration names (`telemetry.otlp`).
//!
//! The log is the trace: [`Layer`] makes one span of each event of this crate that has a field
//! `sample`, whatever its level; the message is its name, the other fields are its attributes, and
//! `took_us` is its length. The trace id follows from the sample's id ([`trace_id`]), so the hub's
//! spans and the device's lie in one trace although nothing travels for it. A span has no parent:
//! the steps of a road may lie months apart.
//!
//! Limits: [`QUEUE`] steps wait; one more is dropped and counted, for no thread waits for a
//! collector. [`BATCH`] spans go in one request; a request that fails for good (the library tries
//! again for ten seconds) is counted and gone. Without `telemetry.otlp` there is no layer, and an
//! event costs what it costs without it. `OTEL_EXPORTER_OTLP_HEADERS`, `…_TIMEOUT`,
//! `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` count as the library says.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fleetloop_protocol::api::status::OtlpStatus;
use fleetloop_protocol::keys::random_bytes;
use fleetloop_protocol::trace_id;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_otlp::{Protocol, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::{mpsc, watch};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::layer::{Context, Layer as _};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::Clock;

/// Steps that may wait: some seconds of the fastest road, and little memory.
pub const QUEUE: usize = 2048;

/// Spans in one request.
pub const BATCH: usize = 512;

/// How long steps are gathered for one request.
const GATHER: Duration = Duration::from_secs(1);

/// How long a collector may take to answer a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// Reads the counts; cheap to clone.
#[derive(Debug, Clone)]
pub struct Seen(Arc<Counts>);

impl Seen {
    /// What became of spans since start.
    pub fn status(&self) -> OtlpStatus {
        OtlpStatus {
            exported: self.0.exported.load(Ordering::Relaxed),
            failed: self.0.failed.load(Ordering::Relaxed),
            dropped: self.0.dropped.load(Ordering::Relaxed),
        }
    }
}

/// A step of a sample's road, on its way out.
#[derive(Debug)]
struct Step {
    at: Instant,
    took: Duration,
    name: String,
    sample: String,
    failed: bool,
    attributes: Vec<KeyValue>,
}

/// The end in the log: hands steps over and never waits.
pub struct Layer {
    steps: mpsc::Sender<Step>,
    counts: Arc<Counts>,
}

/// The end that sends.
pub struct Export {
    steps: mpsc::Receiver<Step>,
    counts: Arc<Counts>,
}

/// The layer, with the filter that lets nothing but steps through, and the end that sends.
pub fn channel<S>() -> (impl tracing_subscriber::Layer<S> + Send + Sync, Export)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let (sender, steps) = mpsc::channel(QUEUE);
    let counts = Arc::new(Counts::default());
    let layer = Layer { steps: sender, counts: Arc::clone(&counts) };
    let filter: FilterFn = filter_fn(is_step);
    (layer.with_filter(filter.with_max_level_hint(LevelFilter::DEBUG)), Export { steps, counts })
}

fn is_step(metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
        && metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
        && metadata.fields().field("sample").is_some()
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Layer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut step = Step {
            at: Instant::now(),
            took: Duration::ZERO,
            name: String::new(),
            sample: String::new(),
            failed: *event.metadata().level() == Level::ERROR,
            attributes: Vec::new(),
        };
        event.record(&mut step);
        if self.steps.try_send(step).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Step {
    fn add(&mut self, field: &Field, value: impl Into<opentelemetry::Value>) {
        self.attributes.push(KeyValue::new(field.name(), value));
    }
}

impl Visit for Step {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "took_us" => self.took = Duration::from_micros(value),
            _ => self.add(field, i64::try_from(value).unwrap_or(i64::MAX)),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.name = text,
            "sample" => {
                self.add(field, text.clone());
                self.sample = text;
            }
            _ => self.add(field, text),
        }
    }
}

/// Why no spans can be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client for telemetry.otlp")]
    Client(#[from] reqwest::Error),
    /// The address or one of the `OTEL_…` variables cannot be used.
    #[error("cannot export to telemetry.otlp; check it and the OTEL_… variables")]
    Exporter(#[from] ExporterBuildError),
}

/// The exporter to a collector's base address, speaking for the hub at `host`.
///
/// # Errors
/// [`OtlpError`].
pub fn exporter(collector: &str, host: &str) -> Result<SpanExporter, OtlpError> {
    let client = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_WITHIN).build()?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", collector.trim_end_matches('/')))
        .build()?;
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("service.instance.id", host.to_owned()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
    ]);
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(env!("CARGO_PKG_NAME"));
    }
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

impl Export {
    /// Reads the counts.
    pub fn seen(&self) -> Seen {
        Seen(Arc::clone(&self.counts))
    }

    /// Sends until `ended` is true, and then what waits.
    pub async fn run(
        mut self,
        exporter: SpanExporter,
        clock: Clock,
        mut ended: watch::Receiver<bool>,
    ) {
        let mut working = true;
        let (mut full, mut ending) = (false, false);
        let mut steps = Vec::with_capacity(BATCH);
        loop {
            if !ending && !full {
                // Cancel-safe: the sleep holds nothing and `ended` is only observed.
                tokio::select! {
                    () = tokio::time::sleep(GATHER) => {}
                    // An error means that the sender is gone, which is as good as the signal.
                    _ = ended.wait_for(|now| *now) => ending = true,
                }
            }
            while steps.len() < BATCH
                && let Ok(step) = self.steps.try_recv()
            {
                steps.push(step);
            }
            full = steps.len() == BATCH;
            if steps.is_empty() {
                if ending {
                    return;
                }
                continue;
            }
            let spans: Vec<SpanData> = steps.drain(..).map(|step| span(step, &clock)).collect();
            let count = spans.len() as u64;
            match exporter.export(spans).await {
                Ok(()) => {
                    self.counts.exported.fetch_add(count, Ordering::Relaxed);
                    working = true;
                }
                Err(error) => {
                    self.counts.failed.fetch_add(count, Ordering::Relaxed);
                    if std::mem::take(&mut working) {
                        tracing::warn!(%error, "the OTLP collector takes no spans; they are counted and gone");
                    }
                }
            }
        }
    }
}

fn span(step: Step, clock: &Clock) -> SpanData {
    let ended = Duration::from_millis(clock.now().0).saturating_sub(step.at.elapsed());
    let end_time = UNIX_EPOCH + ended;
    // Without random bytes the span has the id that means none; the trace still holds.
    let id = random_bytes::<8>().unwrap_or_default();
    SpanData {
        span_context: SpanContext::new(
            TraceId::from_bytes(trace_id(&step.sample)),
            SpanId::from_bytes(id),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        status: if step.failed { Status::error(step.name.clone()) } else { Status::Unset },
        name: step.name.into(),
        start_time: UNIX_EPOCH + ended.saturating_sub(step.took),
        end_time,
        attributes: step.attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        instrumentation_scope: InstrumentationScope::builder("fleetloop").build(),
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use fleetloop_protocol::UnixMillis;

    use super::*;

    const SAMPLE: &str = "dev-1/0000000000000001/7";
    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    /// A collector that answers `status`, and hands on what it was sent.
    async fn collector(status: u16) -> (String, mpsc::Receiver<ExportTraceServiceRequest>) {
        crate::pki::tls::install_provider();
        let (sender, requests) = mpsc::channel(16);
        let take = move |body: axum::body::Bytes| async move {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            sender.send(request).await.unwrap();
            axum::http::StatusCode::from_u16(status).unwrap()
        };
        let routes = axum::Router::new().route("/v1/traces", axum::routing::post(take));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (address, requests)
    }

    #[tokio::test]
    async fn the_hubs_steps_lie_in_the_trace_that_the_device_reaches_by_itself() {
        let (address, mut requests) = collector(200).await;
        let (layer, export) = channel();
        let log = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        tracing::debug!(sample = %SAMPLE, took_us = 1500_u64, "sample stored");
        tracing::info!(device = "dev-1", "nothing of a sample");
        drop(log);
        let seen = export.seen();
        let ended = watch::channel(true).1;
        let clock = Clock::manual(NOW);
        export.run(exporter(&address, "plant").unwrap(), clock, ended).await;
        assert_eq!(seen.status(), OtlpStatus { exported: 1, failed: 0, dropped: 0 });
        let request = requests.recv().await.unwrap();
        assert!(format!("{:?}", request.resource_spans[0].resource).contains("fleet-hub"));
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(
            (span.name.as_str(), &span.trace_id[..]),
            ("sample stored", &trace_id(SAMPLE)[..])
        );
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1_500_000);
    }

    #[tokio::test]
    async fn what_a_collector_refuses_and_what_finds_no_room_is_counted() {
        let (address, _requests) = collector(400).await;
        let (layer, export) = channel();
        let log = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        for _ in 0..QUEUE + 3 {
            tracing::debug!(sample = %SAMPLE, "sample stored");
        }
        drop(log);
        let seen = export.seen();
        let ended = watch::channel(true).1;
        export.run(exporter(&address, "plant").unwrap(), Clock::manual(NOW), ended).await;
        assert_eq!(seen.status(), OtlpStatus { exported: 0, failed: QUEUE as u64, dropped: 3 });
    }
}
