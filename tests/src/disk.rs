//! A disk of its own for a node: an ext4 image on a loop device, which can lose power or become read-only.
//!
//! Needs root. The mount is undone when the disk is dropped.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::skips::skip;

/// Asks ext4 to shut down (`_IOR('X', 125, __u32)`), from linux/fs/ext4/ext4.h.
const EXT4_IOC_SHUTDOWN: u32 = 0x8004_587d;

/// Without a flush of the journal: what was not fsynced is gone, as after a power cut.
const NO_LOG_FLUSH: u32 = 2;

/// An ext4 filesystem in a file.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    is_shared: bool,
    is_mounted: bool,
}

impl Disk {
    /// Makes and mounts a filesystem of `mebibytes`; skips and gives `None` where that is not possible.
    #[track_caller]
    pub fn new(mebibytes: u64) -> Option<Disk> {
        if !rustix::process::geteuid().is_root() {
            skip("mounting a loop device needs root", "run the tests as root: sudo -E cargo test --workspace");
            return None;
        }
        match Disk::make(mebibytes) {
            Ok(disk) => Some(disk),
            Err(error) => {
                let install = "apt-get install -y --no-install-recommends e2fsprogs mount, in a container that may mount \
                               (docker run --privileged)";
                skip(&format!("no loop device with ext4 here ({error:#})"), install);
                None
            }
        }
    }

    fn make(mebibytes: u64) -> Result<Disk> {
        let folder = tempfile::Builder::new().prefix("bellrock-disk-").tempdir()?;
        let mut disk = Disk { folder, is_shared: false, is_mounted: false };
        File::create(disk.image())?.set_len(mebibytes << 20)?;
        run(Command::new("mkfs.ext4").arg("-q").arg(disk.image()))?;
        disk.share()?;
        std::fs::create_dir(disk.path())?;
        disk.mount()?;
        Ok(disk)
    }

    /// A mount namespace that is made meanwhile (`deploy/three-nodes/with-name` makes one) has the disk too, and it must
    /// lose it when we do: else the filesystem lives on there, with its failure, and is what is mounted again. A mount
    /// below a shared one is taken off everywhere, where the other namespace follows ours.
    fn share(&mut self) -> Result<()> {
        let mounts = self.mounts();
        std::fs::create_dir(&mounts)?;
        run(Command::new("mount").arg("--bind").args([&mounts, &mounts]))?;
        self.is_shared = true;
        run(Command::new("mount").arg("--make-shared").arg(&mounts))
    }

    fn mounts(&self) -> PathBuf {
        self.folder.path().join("mounts")
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.mounts().join("disk")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Mounts it again after [`PowerSwitch::cut`], which replays its journal.
    pub fn mount(&mut self) -> Result<()> {
        run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(self.image()).arg(self.path()))?;
        self.is_mounted = true;
        Ok(())
    }

    /// Takes the filesystem off.
    pub fn unmount(&mut self) -> Result<()> {
        run(Command::new("umount").arg(self.path()))?;
        self.is_mounted = false;
        Ok(())
    }

    /// Prepares a power cut, which then takes no time.
    pub fn power_switch(&self) -> Result<PowerSwitch> {
        // No safe wrapper of this ioctl is at hand, and `unsafe` is denied here; Python is needed by other tests too.
        let script = "import fcntl,os,struct,sys\n\
                      f=os.open(sys.argv[1],os.O_RDONLY)\n\
                      print('ready',flush=True)\n\
                      sys.stdin.readline()\n\
                      fcntl.ioctl(f,int(sys.argv[2]),struct.pack('I',int(sys.argv[3])))";
        let mut python = Command::new("python3")
            .args(["-c", script])
            .arg(self.path())
            .args([EXT4_IOC_SHUTDOWN.to_string(), NO_LOG_FLUSH.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start python3")?;
        let mut line = String::new();
        BufReader::new(python.stdout.take().context("its output is a pipe")?).read_line(&mut line)?;
        Ok(PowerSwitch { python })
    }

    /// Makes it read-only, as ext4 does when the disk below it fails.
    pub fn make_read_only(&self) -> Result<()> {
        let device = device_of(&self.path())?;
        let trigger = format!("/sys/fs/ext4/{device}/trigger_fs_error");
        std::fs::write(&trigger, "a test\n").with_context(|| trigger)
    }
}

/// Cuts the power of a [`Disk`].
#[derive(Debug)]
pub struct PowerSwitch {
    python: Child,
}

impl PowerSwitch {
    /// Loses what was not fsynced, and every later write; the processes on the disk still run.
    pub fn cut(mut self) -> Result<()> {
        self.python.stdin.take().context("its input is a pipe")?.write_all(b"\n")?;
        let status = self.python.wait()?;
        if !status.success() {
            bail!("the power was not cut: {status}");
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for (path, is_mounted) in [(self.path(), self.is_mounted), (self.mounts(), self.is_shared)] {
            if is_mounted && let Err(error) = run(Command::new("umount").arg("--lazy").arg(&path)) {
                eprintln!("{} stays mounted: {error:#}", path.display());
            }
        }
    }
}

/// `loop0` of the filesystem that is mounted at `path`.
fn device_of(path: &Path) -> Result<String> {
    let mounts = std::fs::read_to_string("/proc/mounts")?;
    let path = path.to_string_lossy();
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&path)).context("it is mounted")?;
    let device = line.split(' ').next().unwrap_or_default();
    Ok(device.rsplit('/').next().unwrap_or_default().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
