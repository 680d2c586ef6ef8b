//! The child: reads what to do, confines itself, tries the model, says what became of it.

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use fleetloop_models::bundle::Bundle;
use fleetloop_models::picture::Frame;
use fleetloop_models::session::{Optimised, RunLimit, Runtime, Session, SessionError, Threads};
use fleetloop_protocol::Digest;

use super::{Picture, REQUEST_BYTES, Request, Verdict, confine};
use crate::chain::chain;

/// How often a run is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `edge-agent prove`: not for people. Has to run before any thread is made.
pub fn main() -> ExitCode {
    let verdict = verdict();
    let proven = matches!(verdict, Verdict::Proven { .. });
    // A verdict is plain text.
    let mut line = serde_json::to_vec(&verdict).unwrap_or_default();
    line.push(b'\n');
    let said = io::stdout().write_all(&line).and_then(|()| io::stdout().flush());
    if proven && said.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn verdict() -> Verdict {
    let untried = |what: &str, error: &dyn std::fmt::Display| Verdict::Untried {
        reason: format!("cannot {what}: {error}"),
    };
    let (request, frames) = match request() {
        Ok(request) => request,
        Err(error) => return untried("read what to try", &error),
    };
    let Some(scratch) = request.out.parent() else {
        return untried("write", &request.out.display());
    };
    if let Err(error) = confine::belong_to(request.parent) {
        return untried("belong to the agent", &error);
    }
    confine::go_first_when_memory_is_short();
    if let Err(error) = confine::limit(request.limits) {
        return untried("set the limits (prlimit64)", &error);
    }
    let confined = match confine::fence(&[&request.library, &request.folder], scratch) {
        Ok(confined) => confined,
        Err(error) => return untried("give up files (landlock)", &error),
    };
    if let Err(error) = confine::filter() {
        return untried("give up system calls (seccomp)", &error);
    }
    let runtime = match Runtime::load(Some(&request.library)) {
        Ok(runtime) => runtime,
        Err(error) => return untried("load ONNX Runtime", &chain(&error)),
    };
    match prove(&request, &frames, &runtime) {
        Ok(optimised) => Verdict::Proven { optimised, confined },
        Err(reason) => Verdict::Refused { reason },
    }
}

/// What to do, and the frames.
fn request() -> io::Result<(Request, Vec<Frame>)> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(REQUEST_BYTES).read_to_end(&mut bytes)?;
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or(io::ErrorKind::UnexpectedEof)?;
    let request: Request = serde_json::from_slice(&bytes[..end])?;
    let mut rest = &bytes[end + 1..];
    let mut frames = Vec::new();
    for picture in &request.frames {
        frames.push(frame(*picture, &mut rest)?);
    }
    Ok((request, frames))
}

fn frame(picture: Picture, rest: &mut &[u8]) -> io::Result<Frame> {
    let len = usize::try_from(picture.len()).map_err(io::Error::other)?;
    let (pixels, after) = rest.split_at_checked(len).ok_or(io::ErrorKind::UnexpectedEof)?;
    *rest = after;
    Frame::new(picture.width, picture.height, picture.channels(), pixels.to_vec())
        .map_err(io::Error::other)
}

/// The digest of the optimised graph, none if the bundle's own is what was proven; or why not.
fn prove(request: &Request, frames: &[Frame], runtime: &Runtime) -> Result<Option<Digest>, String> {
    let bundle = Bundle::open(&request.folder, Some(request.bundle)).map_err(|e| chain(&e))?;
    let limit = RunLimit::new().map_err(|error| chain(&error))?;
    look_at(limit.clone(), Duration::from_secs(request.limits.run_s.into()))
        .map_err(|error| chain(&error))?;
    if let Some(optimised) = optimise(&request.out, &bundle, runtime) {
        let digest = Digest::of(optimised.bytes());
        let opened = Session::open_optimised(runtime, &optimised, &bundle, Threads(1));
        if let Ok(session) = opened
            && try_out(session, &bundle, frames, &limit).is_ok()
        {
            return Ok(Some(digest));
        }
    }
    // What the optimiser made is of no use: the bundle's own graph has the last word.
    std::fs::remove_file(&request.out).ok();
    let session = Session::open(runtime, &bundle, Threads(1)).map_err(|error| reason(&error))?;
    try_out(session, &bundle, frames, &limit).map(|()| None)
}

/// An error with the limit that it is about, if it is about one.
fn reason(error: &(dyn Error + 'static)) -> String {
    let words = chain(error);
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(SessionError::Overdue { .. }) = error.downcast_ref() {
            return format!("{words} (inference.run_limit_s)");
        }
        cause = error.source();
    }
    // ONNX Runtime's words where its arena gets no memory, and the C++ library's.
    if ["allocate memory", "bad_alloc"].iter().any(|said| words.contains(said)) {
        return format!("it needs more memory than it may use (proof.memory_mb): {words}");
    }
    words
}

fn optimise(out: &Path, bundle: &Bundle, runtime: &Runtime) -> Option<Optimised> {
    Session::optimise(runtime, bundle, out).ok()?;
    let bytes = std::fs::read(out).ok()?;
    let digest = Digest::of(&bytes);
    Optimised::of(bytes, 0, digest)
}

fn try_out(
    mut session: Session,
    bundle: &Bundle,
    frames: &[Frame],
    limit: &RunLimit,
) -> Result<(), String> {
    session.set_limit(limit.clone());
    bundle.golden().check(&mut session).map_err(|error| reason(&error))?;
    for frame in frames {
        let answer = session.classify(frame);
        let answer =
            answer.map_err(|e| format!("on a recent frame of this source: {}", reason(&e)))?;
        if !answer.is_finite() {
            return Err("its answer to a recent frame of this source is no number".to_owned());
        }
    }
    Ok(())
}

/// Ends runs that take longer than `each`.
fn look_at(limit: RunLimit, each: Duration) -> io::Result<()> {
    let look = move || {
        loop {
            std::thread::sleep(LOOK_EVERY);
            limit.look(each);
        }
    };
    std::thread::Builder::new().name("limit".into()).spawn(look).map(drop)
}
