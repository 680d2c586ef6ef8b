//! A sample's road as OTLP spans, for a collector that the configuration names (`telemetry.otlp`).
//!
//! The log is the trace: [`Layer`] makes one span of each event of a program's crate that has a field
//! `sample`, whatever its level; the message is its name, the other fields are its attributes, and
//! `took_us` is its length. The trace id follows from the sample's id ([`trace_id`]), so the hub's
//! spans and the device's lie in one trace although nothing travels for it. A span has no parent:
//! the steps of a road may lie months apart.
//!
//! A process has one log, and one [`Export`]; each [`Speaker`] in it has a collector of its own.
//!
//! Limits: [`QUEUE`] steps wait; one more is dropped and counted, for no thread waits for a
//! collector. [`BATCH`] spans go in one request; a request that fails for good (the library tries
//! again for ten seconds) is counted and gone, and so is what comes until the next attempt, which waits
//! longer each time ([`Backoff`]). Without `telemetry.otlp` there is no layer, and an
//! event costs what it costs without it. `OTEL_EXPORTER_OTLP_HEADERS`, `…_TIMEOUT`,
//! `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` count as the library says.

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fleetloop_protocol::api::status::OtlpStatus;
use fleetloop_protocol::backoff::Backoff;
use fleetloop_protocol::keys::random_bytes;
use fleetloop_protocol::{DeviceId, UnixMillis, trace_id};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_otlp::{Protocol, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::mpsc;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Layer as _};
use tracing_subscriber::registry::LookupSpan;

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
}

/// Reads the counts; cheap to clone.
#[derive(Debug, Clone)]
pub struct Seen {
    sent: Arc<Counts>,
    dropped: Arc<AtomicU64>,
}

impl Seen {
    /// What became of a speaker's spans since start. Those dropped are the process's.
    pub fn status(&self) -> OtlpStatus {
        OtlpStatus {
            exported: self.sent.exported.load(Ordering::Relaxed),
            failed: self.sent.failed.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
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
    dropped: Arc<AtomicU64>,
}

/// The end that sends.
pub struct Export {
    steps: mpsc::Receiver<Step>,
    dropped: Arc<AtomicU64>,
    collectors: Vec<Collector>,
}

/// Who speaks to a collector.
#[derive(Debug, Clone)]
pub struct Speaker {
    /// The program: its package's name.
    pub program: &'static str,
    /// The program's version.
    pub version: &'static str,
    /// Which of all that run the program: `service.instance.id`.
    pub instance: String,
    /// Steps of whose samples it speaks of; all of them when absent.
    pub device: Option<DeviceId>,
}

/// What time it is.
pub type Now = Box<dyn Fn() -> UnixMillis + Send + Sync>;

/// Where the spans of a speaker go.
struct Collector {
    speaker: Speaker,
    exporter: SpanExporter,
    now: Now,
    counts: Arc<Counts>,
    /// Whether it took the last it was sent.
    working: bool,
    /// How long the next attempt waits after one that failed, and until when.
    backoff: Backoff,
    again_at: Option<Instant>,
}

/// The layer, with the filter that lets nothing but steps of this crate through, and the end that sends.
pub fn channel<S>(of: &'static str) -> (impl tracing_subscriber::Layer<S> + Send + Sync, Export)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let (sender, steps) = mpsc::channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let layer = Layer { steps: sender, dropped: Arc::clone(&dropped) };
    let filter = filter_fn(move |metadata| is_step(of, metadata));
    let export = Export { steps, dropped, collectors: Vec::new() };
    (layer.with_filter(filter.with_max_level_hint(LevelFilter::DEBUG)), export)
}

fn is_step(of: &str, metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
        && metadata.target().starts_with(of)
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
            self.dropped.fetch_add(1, Ordering::Relaxed);
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

/// The exporter to a collector's base address.
fn exporter(collector: &str, speaker: &Speaker) -> Result<SpanExporter, OtlpError> {
    let client = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_WITHIN).build()?;
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", collector.trim_end_matches('/')))
        .build()?;
    let mut resource = Resource::builder().with_attributes([
        KeyValue::new("service.instance.id", speaker.instance.clone()),
        KeyValue::new("service.version", speaker.version),
    ]);
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(speaker.program);
    }
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

impl Export {
    /// From now on the steps that a speaker speaks of, by its clock, go to the collector at this base
    /// address.
    ///
    /// # Errors
    /// [`OtlpError`].
    pub fn add(&mut self, collector: &str, speaker: Speaker, now: Now) -> Result<Seen, OtlpError> {
        let counts = Arc::new(Counts::default());
        self.collectors.push(Collector {
            exporter: exporter(collector, &speaker)?,
            speaker,
            now,
            counts: Arc::clone(&counts),
            working: true,
            backoff: Backoff::default(),
            again_at: None,
        });
        Ok(Seen { sent: counts, dropped: Arc::clone(&self.dropped) })
    }

    /// Sends until `ended`, and then what waits.
    pub async fn run(mut self, ended: impl Future<Output = ()>) {
        let mut ended = pin!(ended);
        let (mut full, mut ending) = (false, false);
        let mut steps = Vec::with_capacity(BATCH);
        loop {
            if !ending && !full {
                // Cancel-safe: the sleep holds nothing, and the end is waited for further.
                tokio::select! {
                    () = tokio::time::sleep(GATHER) => {}
                    () = &mut ended => ending = true,
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
            for collector in &mut self.collectors {
                collector.send(&mut steps).await;
            }
            // What is left is of devices that nobody speaks of.
            steps.clear();
        }
    }
}

impl Collector {
    /// Takes its own out of `steps` and sends them.
    async fn send(&mut self, steps: &mut Vec<Step>) {
        let own = |step: &mut Step| {
            let device = step.sample.split_once('/').map(|(device, _)| device);
            self.speaker.device.as_ref().is_none_or(|own| device == Some(own.as_str()))
        };
        let spans: Vec<SpanData> =
            steps.extract_if(.., own).map(|step| span(step, (self.now)())).collect();
        if spans.is_empty() {
            return;
        }
        let count = spans.len() as u64;
        if self.again_at.is_some_and(|at| Instant::now() < at) {
            self.counts.failed.fetch_add(count, Ordering::Relaxed);
            return;
        }
        match self.exporter.export(spans).await {
            Ok(()) => {
                self.counts.exported.fetch_add(count, Ordering::Relaxed);
                self.working = true;
                self.backoff.reset();
                self.again_at = None;
            }
            Err(error) => {
                self.again_at = Some(Instant::now() + self.backoff.next_wait());
                self.counts.failed.fetch_add(count, Ordering::Relaxed);
                if std::mem::take(&mut self.working) {
                    let speaker = &self.speaker.instance;
                    tracing::warn!(speaker, %error, "the OTLP collector takes no spans; they are counted and gone");
                }
            }
        }
    }
}

fn span(step: Step, now: UnixMillis) -> SpanData {
    let ended = Duration::from_millis(now.0).saturating_sub(step.at.elapsed());
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

    use super::*;

    const SAMPLE: &str = "dev-1/0000000000000001/7";
    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    /// A collector that answers 200, or `status`, and hands on what it was sent.
    async fn collector(status: u16) -> (String, mpsc::Receiver<ExportTraceServiceRequest>) {
        // Several tests of one process install it; the first does.
        rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
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

    fn speaker(device: Option<&str>) -> Speaker {
        let device = device.map(|device| device.parse().unwrap());
        Speaker { program: "robot", version: "1", instance: "line 3".into(), device }
    }

    fn now() -> Now {
        Box::new(|| NOW)
    }

    #[tokio::test]
    async fn each_step_of_a_sample_is_a_span_in_its_trace_and_nothing_else_is_sent() {
        let (address, mut requests) = collector(200).await;
        let (layer, mut export) = channel(env!("CARGO_CRATE_NAME"));
        let log = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        tracing::debug!(sample = "dev-10/0000000000000001/7", "sample stored");
        tracing::debug!(sample = %SAMPLE, bytes = 70, took_us = 1500_u64, "sample stored");
        tracing::error!(sample = %SAMPLE, reason = "other", "sample refused");
        tracing::info!("nothing of a sample");
        drop(log);
        let seen = export.add(&address, speaker(Some("dev-1")), now()).unwrap();
        export.run(std::future::ready(())).await;
        assert_eq!(seen.status(), OtlpStatus { exported: 2, failed: 0, dropped: 0 });
        let request = requests.recv().await.unwrap();
        let resource = &request.resource_spans[0];
        let named = format!("{:?}", resource.resource);
        assert!(named.contains("robot") && named.contains("line 3"), "{named}");
        let spans = &resource.scope_spans[0].spans;
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["sample stored", "sample refused"]);
        for span in spans {
            assert_eq!(span.trace_id, trace_id(SAMPLE));
            // The speaker's time, less what the step waited for its export.
            let now_s = NOW.0 / 1000;
            assert!((now_s - 3600..=now_s).contains(&(span.end_time_unix_nano / 1_000_000_000)));
        }
        assert_eq!(spans[0].end_time_unix_nano - spans[0].start_time_unix_nano, 1_500_000);
        assert!(format!("{:?}", spans[0].attributes).contains("IntValue(70)"));
        assert_eq!(spans[1].status.as_ref().unwrap().message, "sample refused");
    }

    #[tokio::test]
    async fn who_speaks_of_no_device_alone_speaks_of_all_that_nobody_spoke_of_before() {
        let (one, mut requests_of_one) = collector(200).await;
        let (rest, mut requests_of_the_rest) = collector(200).await;
        let (layer, mut export) = channel(env!("CARGO_CRATE_NAME"));
        let log = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        tracing::info!(sample = %SAMPLE, "one");
        tracing::info!(sample = "dev-2/0000000000000001/7", "two");
        tracing::info!(sample = "dev-3/0000000000000001/7", "three");
        drop(log);
        export.add(&one, speaker(Some("dev-1")), now()).unwrap();
        export.add(&rest, speaker(None), now()).unwrap();
        export.run(std::future::ready(())).await;
        let names = |request: ExportTraceServiceRequest| {
            let spans = &request.resource_spans[0].scope_spans[0].spans;
            spans.iter().map(|span| span.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(requests_of_one.recv().await.unwrap()), ["one"]);
        assert_eq!(names(requests_of_the_rest.recv().await.unwrap()), ["two", "three"]);
    }

    #[tokio::test]
    async fn what_a_collector_refuses_and_what_finds_no_room_is_counted() {
        let (address, _requests) = collector(400).await;
        let (layer, mut export) = channel(env!("CARGO_CRATE_NAME"));
        let log = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        for _ in 0..QUEUE + 3 {
            tracing::debug!(sample = %SAMPLE, "sample stored");
        }
        drop(log);
        let seen = export.add(&address, speaker(Some("dev-1")), now()).unwrap();
        export.run(std::future::ready(())).await;
        let status = seen.status();
        assert_eq!((status.exported, status.failed, status.dropped), (0, QUEUE as u64, 3));
    }
}
