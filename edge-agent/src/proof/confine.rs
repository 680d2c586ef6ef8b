//! What the child gives up before it looks at a model. Has to run on its only thread: Landlock below ABI
//! 8 binds the calling thread and those it makes later, and ONNX Runtime makes some.
//!
//! | limit | what happens at it |
//! |---|---|
//! | processor time (`RLIMIT_CPU`) | SIGXCPU ends the child |
//! | memory that it may write to (`RLIMIT_DATA`) | an allocation fails: ONNX Runtime says so or aborts |
//! | file size (`RLIMIT_FSIZE`) | SIGXFSZ ends it |
//! | core dumps, debuggers | none |
//! | files (Landlock) | the library, the bundle, the system's libraries and processor are read, one folder is written, the rest is refused |
//! | TCP, signals, abstract sockets (Landlock from ABI 4 and 6) | refused |
//! | sockets, programs, processes (a filter of system calls) | refused |
//!
//! `RLIMIT_AS` would count what is only reserved: the library, thread stacks and 64 MiB for each heap of
//! the C library.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setpriority_process, setrlimit,
};

use super::Limits;

/// What the library reads of the system: its own libraries, and the processor.
const SYSTEM: [&str; 8] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/etc/ld.so.cache",
    "/proc/cpuinfo",
    "/sys/devices/system",
    "/sys/fs/cgroup",
];

/// The last priority there is.
const LAST: i32 = 19;

/// Files that may be open at a time.
const FILES: u64 = 128;

/// What the system must not be asked for: it has another program, process or machine at its end.
const REFUSED: [libc::c_long; 13] = [
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_sendto,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kill,
    libc::SYS_pidfd_open,
    libc::SYS_io_uring_setup,
];

/// Dies with the agent and gives way to it.
///
/// # Errors
/// The system's, or that the agent has ended already.
pub(super) fn belong_to(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()) != Some(parent) {
        return Err(io::Error::other("the agent has ended"));
    }
    setpriority_process(None, LAST)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Is the first that the system ends when memory is short. Not everywhere allowed, and then left out.
pub(super) fn go_first_when_memory_is_short() {
    let raise = std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/oom_score_adj")
        .and_then(|mut file| io::Write::write_all(&mut file, b"1000"));
    drop(raise);
}

/// Sets the limits.
///
/// # Errors
/// The system's.
pub(super) fn limit(limits: Limits) -> io::Result<()> {
    let most = |limit: u64, beyond: u64| Rlimit { current: Some(limit), maximum: Some(beyond) };
    let mib = |mib: u32| u64::from(mib) << 20;
    let cpu_s = u64::from(limits.cpu_s);
    // A second more until the signal that cannot be caught.
    setrlimit(Resource::Cpu, most(cpu_s, cpu_s + 1))?;
    setrlimit(Resource::Data, most(mib(limits.memory_mb), mib(limits.memory_mb)))?;
    setrlimit(Resource::Fsize, most(mib(limits.file_mb), mib(limits.file_mb)))?;
    setrlimit(Resource::Core, most(0, 0))?;
    setrlimit(Resource::Nofile, most(FILES, FILES))?;
    Ok(())
}

/// Lets the process read the `readable` paths and what the library needs, write in `scratch`, and reach
/// nothing else; what the kernel enforces of it, in words.
///
/// # Errors
/// The system's; a kernel without Landlock is no error.
pub(super) fn fence(readable: &[&Path], scratch: &Path) -> Result<String, RulesetError> {
    // What a later kernel adds is decided when it is known here.
    let abi = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write =
        read | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::Truncate;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(readable, read))?
        .add_rules(path_beneath_rules([scratch], write))?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => "files, network and signals",
        RulesetStatus::PartiallyEnforced => "files, as far as this kernel's Landlock goes",
        RulesetStatus::NotEnforced => "limits only: this kernel has no Landlock",
    }
    .to_owned())
}

/// Refuses what has another program, process or machine at its end. The process must not gain
/// privileges, see [`fence`].
///
/// # Errors
/// The system's.
pub(super) fn filter() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    let Some(architecture) = ARCHITECTURE else { return Ok(()) };
    let mut program = program(architecture);
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which lives until after the call.
    #[expect(unsafe_code, reason = "the C library has no function for it")]
    let done =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The kernel's number of this architecture (`linux/audit.h`).
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// Where the kernel's record of a call has its number, the architecture, and the lower half of the first
/// argument (`linux/seccomp.h`).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST: u32 = 16;

/// Calls of x86-64's other interface have this bit.
const OTHER_INTERFACE: u32 = 0x4000_0000;

/// The filter, a classic BPF program: each line is compared, and jumps over as many as it says.
fn program(architecture: u32) -> Vec<libc::sock_filter> {
    let line =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |at: u32| line(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let give = |what: u32| line(libc::BPF_RET | libc::BPF_K, 0, 0, what);
    let equal =
        |k: u32, jt: u8, jf: u8| line(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, jt, jf, k);
    let has =
        |k: u32, jt: u8, jf: u8| line(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, jt, jf, k);
    let error = |errno: i32| give(libc::SECCOMP_RET_ERRNO | errno.unsigned_abs());
    let mut lines = vec![
        load(ARCH),
        equal(architecture, 1, 0),
        give(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER),
        has(OTHER_INTERFACE, 0, 1),
        error(libc::EPERM),
    ];
    for call in REFUSED {
        lines.extend([equal(call as u32, 0, 1), error(libc::EPERM)]);
    }
    // The C library makes threads with the older call then, whose flags can be looked at.
    lines.extend([equal(libc::SYS_clone3 as u32, 0, 1), error(libc::ENOSYS)]);
    lines.extend([
        equal(libc::SYS_clone as u32, 0, 3),
        load(FIRST),
        has(libc::CLONE_THREAD.unsigned_abs(), 1, 0),
        error(libc::EPERM),
        give(libc::SECCOMP_RET_ALLOW),
    ]);
    lines
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::process::Command;

    use super::*;

    /// Set in the process that is confined.
    const INSIDE: &str = "FLEETLOOP_TEST_INSIDE";

    /// The test starts itself again, and that process confines itself.
    #[test]
    fn a_confined_process_reads_its_bundle_and_reaches_nothing_else() {
        if let Some(dir) = std::env::var_os(INSIDE) {
            return inside(Path::new(&dir));
        }
        let dir = tempfile::tempdir().unwrap();
        for folder in ["bundle", "scratch", "secret"] {
            crate::durable::create_dir(&dir.path().join(folder)).unwrap();
            crate::durable::write(&dir.path().join(folder).join("file"), b"text").unwrap();
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let name =
            "proof::confine::tests::a_confined_process_reads_its_bundle_and_reaches_nothing_else";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(INSIDE, dir.path())
            .env("FLEETLOOP_TEST_PORT", listener.local_addr().unwrap().port().to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("confined: "), "{said}");
    }

    fn inside(dir: &Path) {
        let limits = Limits { wall_s: 60, cpu_s: 60, memory_mb: 256, file_mb: 1, run_s: 1 };
        let (bundle, scratch) = (dir.join("bundle"), dir.join("scratch"));
        let program = std::env::current_exe().unwrap();
        belong_to(std::os::unix::process::parent_id()).unwrap();
        limit(limits).unwrap();
        let confined = fence(&[&bundle], &scratch).unwrap();
        filter().unwrap();

        assert_eq!(std::fs::read(bundle.join("file")).unwrap(), b"text");
        assert!(std::fs::File::create(scratch.join("out")).is_ok());
        if confined.starts_with("files") {
            assert!(std::fs::read(dir.join("secret/file")).is_err());
            assert!(std::fs::read("/etc/passwd").is_err());
            assert!(std::fs::File::create(bundle.join("file")).is_err());
            assert!(std::fs::read_dir("/proc").is_err());
        }
        let port = std::env::var("FLEETLOOP_TEST_PORT").unwrap().parse().unwrap();
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
        assert!(UdpSocket::bind("127.0.0.1:0").is_err());
        assert!(Command::new(program).status().is_err());
        assert!(Vec::<u8>::new().try_reserve(300 << 20).is_err());
        // What ONNX Runtime needs still works.
        assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
        println!("confined: {confined}");
    }
}
