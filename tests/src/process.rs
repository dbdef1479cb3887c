//! A child process with its output captured: ended when dropped, by its id; its output is printed if the test fails.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::wait::wait_within;

/// Lines of output that are kept; the latest ones tell why a test failed.
const LINES_MAX: usize = 2_000;

/// How long a process may take to stop in order.
const STOP_DEADLINE: Duration = Duration::from_secs(120);

/// How long the last lines of a process that has ended may take to come: its own children may hold the pipes open.
const LAST_LINES_DEADLINE: Duration = Duration::from_secs(5);

/// A running or ended child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Mutex<VecDeque<String>>>,
    /// Read its pipes to their ends; none once that was waited for.
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command`; `name` is what its output is printed under.
    pub fn start(name: &str, command: &mut Command) -> Result<Process> {
        tell_panics_at_once();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
        let output = Arc::new(Mutex::new(VecDeque::new()));
        let readers = [capture(child.stdout.take(), &output), capture(child.stderr.take(), &output)];
        Ok(Process { name: name.to_owned(), child, output, readers: readers.into_iter().flatten().collect() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its latest lines on stdout and stderr, mixed as they came; the last ones too, once it is known to have ended.
    pub fn output(&self) -> String {
        let lines = self.output.lock().unwrap_or_else(|e| e.into_inner());
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The first line for which `find` gives something.
    pub fn find_line<T>(&self, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let lines = self.output.lock().unwrap_or_else(|e| e.into_inner());
        lines.iter().find_map(|line| find(line))
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().ok().flatten()?;
        self.read_to_the_end();
        Some(status)
    }

    fn read_to_the_end(&mut self) {
        let readers = std::mem::take(&mut self.readers);
        // Without them a test that looks for the last lines says what it misses.
        let _ = wait_within(LAST_LINES_DEADLINE, || readers.iter().all(JoinHandle::is_finished).then_some(()));
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.ended().is_none() {
            let pid = Pid::from_raw(self.child.id() as i32).context("a process has an id")?;
            rustix::process::kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Ends it without warning (SIGKILL), and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.read_to_the_end();
        Ok(())
    }

    /// Asks it to stop in order (SIGTERM), and waits until it has.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait()
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        match wait_within(STOP_DEADLINE, || self.ended()) {
            Some(status) => Ok(status),
            None => bail!("{} (pid {}) did not stop within {STOP_DEADLINE:?}", self.name, self.pid()),
        }
    }

    /// Resident memory now, in bytes; 0 if it has ended.
    pub fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap_or_default();
        let pages: u64 = statm.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        pages * 4096
    }

    /// The most resident memory it has had, in bytes.
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already, which is as good.
        let _ = self.kill();
        if std::thread::panicking() {
            eprintln!("--- output of {} (pid {}) ---\n{}---", self.name, self.pid(), self.output());
        }
    }
}

/// Tells of a panic when it happens, past the runner's capture, which tells of it when all tests are over: a run may hang
/// before, or its end be cut off.
fn tell_panics_at_once() {
    static IS_TOLD: Once = Once::new();
    IS_TOLD.call_once(|| {
        let told_later = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            // If stderr is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "{} {panic}", thread.name().unwrap_or("a thread"));
            told_later(panic);
        }));
    });
}

fn capture(
    stream: Option<impl Read + Send + 'static>,
    output: &Arc<Mutex<VecDeque<String>>>,
) -> Option<JoinHandle<()>> {
    let (stream, output) = (stream?, output.clone());
    Some(std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut lines = output.lock().unwrap_or_else(|e| e.into_inner());
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }))
}
