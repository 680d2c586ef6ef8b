//! ONNX Runtime's library: where it is looked for, and the one environment of a process.
//!
//! As its wheel ships it, the library reports the machine, the program's path and an identity that it
//! keeps in the user's home to a server of its makers, from the moment the environment is made; to ask
//! the environment not to is too late. A plant's data stay in the plant, that it exists included: no
//! process of ours loads the library with that on ([`keep_to_itself`]).

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ort::environment::Environment;

use super::SessionError;

/// The file name of the library, as its wheel ships it.
pub const LIBRARY: &str = "libonnxruntime.so.1.31.1";
/// Where a checkout keeps the library.
const CHECKOUT_DIR: &str = ".fleetloop/onnxruntime";
/// Where a system keeps libraries, the administrator's first.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/lib", "/usr/lib", "/usr/lib64"];
/// What the library is called there: as its wheel ships it, and as a package does.
const SYSTEM_NAMES: [&str; 3] = [LIBRARY, "libonnxruntime.so.1", "libonnxruntime.so"];
/// Names the library for every program that runs a model.
pub const LIBRARY_ENV: &str = "FLEETLOOP_ORT_LIB";

/// Turns the library's own reports off when it is `1`, which it is read for once, when it is loaded.
pub(super) const NO_REPORTS: &str = "ORT_DISABLE_TELEMETRY";

/// Has ONNX Runtime report nothing to its makers, in this process and those it starts. Has to run
/// before threads are made; [`Runtime::load`] refuses to work without.
pub fn keep_to_itself() {
    // SAFETY: nothing else reads or writes the environment, for no other thread runs yet.
    #[expect(unsafe_code, reason = "the library reads nothing else before it reports")]
    unsafe {
        std::env::set_var(NO_REPORTS, "1");
    }
}

/// ONNX Runtime in this process. Clones share it.
#[derive(Clone)]
pub struct Runtime {
    pub(super) environment: Environment,
    library: PathBuf,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime").field("library", &self.library).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Loads the library: from `library` if that is given, else from where [`LIBRARY_ENV`] says,
    /// from beside this program, from `.fleetloop/onnxruntime` in the working directory or one
    /// above it, or from where a system keeps its libraries. A second call in a process shares the first one's library, and may name no other.
    ///
    /// # Errors
    /// [`SessionError::Library`] says where it was looked for and how to get it;
    /// [`SessionError::Reports`] where [`keep_to_itself`] was not called.
    pub fn load(library: Option<&Path>) -> Result<Self, SessionError> {
        if std::env::var_os(NO_REPORTS).is_none_or(|value| value != "1") {
            return Err(SessionError::Reports);
        }
        let tried = candidates(library);
        let Some(library) = tried.iter().find(|path| path.is_file()) else {
            return Err(SessionError::Library { tried, source: None });
        };
        // One environment a process, kept for life: ONNX Runtime allows no second.
        static LOADED: Mutex<Option<Runtime>> = Mutex::new(None);
        let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let failed =
            |source| SessionError::Library { tried: vec![library.clone()], source: Some(source) };
        match &*loaded {
            Some(runtime) if runtime.library == *library => Ok(runtime.clone()),
            Some(runtime) => {
                let other = runtime.library.display();
                Err(failed(format!("this process has loaded {other} already").into()))
            }
            None => {
                let environment = environment(library).map_err(failed)?;
                let runtime = Self { environment, library: library.clone() };
                *loaded = Some(runtime.clone());
                Ok(runtime)
            }
        }
    }

    /// The library in use.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// What tells this runtime from another: its build, and the file's size and times.
    pub fn build(&self) -> String {
        let file = std::fs::metadata(&self.library)
            .map(|found| format!("{} {} {}", found.len(), found.mtime(), found.mtime_nsec()));
        format!("{} {}", ort::info(), file.unwrap_or_default())
    }

    /// The runtime's name and version, for records: `ONNX Runtime 1.31.1`.
    pub fn version(&self) -> String {
        let name = self.library.file_name().map(|name| name.to_string_lossy().into_owned());
        let version = name.as_deref().and_then(|name| name.strip_prefix("libonnxruntime.so."));
        format!("ONNX Runtime {}", version.unwrap_or("of unknown version"))
    }
}

fn environment(library: &Path) -> Result<Environment, Box<dyn std::error::Error + Send + Sync>> {
    if let Some(reason) = refused_by_the_loader(library) {
        return Err(reason.into());
    }
    Ok(ort::init_from(library)?.with_telemetry(false).build()?)
}

/// What the system's loader says against the library, which `ort` keeps to itself.
fn refused_by_the_loader(library: &Path) -> Option<String> {
    // SAFETY: what the library runs when it is loaded, it runs when `ort` loads it as well.
    #[expect(unsafe_code, reason = "loading a library runs what it brings")]
    let loaded = unsafe { libloading::Library::new(library) };
    let error = loaded.err()?;
    let source = std::error::Error::source(&error).map(ToString::to_string);
    Some(source.unwrap_or_else(|| error.to_string()))
}

fn candidates(library: Option<&Path>) -> Vec<PathBuf> {
    if let Some(library) = library {
        return vec![library.to_owned()];
    }
    if let Some(library) = std::env::var_os(LIBRARY_ENV) {
        return vec![library.into()];
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(LIBRARY)));
    let mut found: Vec<PathBuf> = beside.into_iter().collect();
    if let Ok(dir) = std::env::current_dir() {
        found.extend(dir.ancestors().map(|dir| dir.join(CHECKOUT_DIR).join(LIBRARY)));
    }
    found.extend(of_the_system());
    found
}

/// Where a library was looked for, in words: a file, or the folders.
pub(super) fn places(tried: &[PathBuf]) -> String {
    if let [only] = tried {
        return only.display().to_string();
    }
    let mut folders: Vec<String> = Vec::new();
    for folder in tried.iter().filter_map(|path| path.parent()) {
        let folder = folder.display().to_string();
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders.join(", ")
}

/// Debian keeps libraries by the kind of machine: `/usr/lib/x86_64-linux-gnu`.
fn of_the_system() -> impl Iterator<Item = PathBuf> {
    let by_machine = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let dirs = SYSTEM_DIRS.map(PathBuf::from).into_iter().chain([by_machine.into()]);
    dirs.flat_map(|dir| SYSTEM_NAMES.map(|name| dir.join(name)))
}

#[cfg(test)]
mod tests {
    use ort::AsPointer as _;

    use super::*;

    #[test]
    fn the_systems_folders_are_searched_last() {
        let candidates = candidates(None);
        let at = |path: &str| candidates.iter().position(|found| found == Path::new(path));
        let usr = at(&format!("/usr/lib/{LIBRARY}")).expect("searched");
        assert!(at("/usr/local/lib/libonnxruntime.so.1").expect("searched") < usr);
        let machine = format!("/usr/lib/{}-linux-gnu/libonnxruntime.so", std::env::consts::ARCH);
        assert_eq!(at(&machine), Some(candidates.len() - 1));
    }

    #[test]
    fn a_library_that_cannot_be_loaded_says_what_the_loader_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Runtime::load(Some(file.path())).unwrap_err();
        let mut said = String::new();
        let mut next: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = next {
            said += &format!(": {error}");
            next = error.source();
        }
        let name = file.path().display().to_string();
        assert!(said.contains(&name), "{said}");
        assert!(said.contains("file too short") || said.contains("has loaded"), "{said}");
    }

    #[test]
    fn a_process_has_one_environment_however_many_handles_it_has() {
        let (one, other) = (Runtime::load(None).unwrap(), Runtime::load(None).unwrap());
        assert_eq!(one.environment.ptr(), other.environment.ptr());
        drop(one);
        let third = Runtime::load(Some(other.library())).unwrap();
        assert_eq!(other.environment.ptr(), third.environment.ptr());
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        assert!(Runtime::load(Some(elsewhere.path())).is_err(), "and no second library");
    }
}
