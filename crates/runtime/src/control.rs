//! The socket in the data folder, by which programs of the same user talk to the process that serves.
//!
//! It is a Unix socket of mode 0600: what comes by it needs no password, and can't come from elsewhere. Whoever listens
//! holds the lock on the folder, so a socket that a killed process has left is removed.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// The socket's name in the data folder.
const NAME: &str = "control.sock";

/// Longest path that fits into the address of a Unix socket, with room for the end.
const PATH_BYTES_MAX: usize = 100;

/// Programs that may wait to be heard.
const BACKLOG: i32 = 16;

/// Listens in a data folder whose lock the caller holds. Must be called inside a tokio runtime.
pub fn listen_in(folder: &Path) -> io::Result<tokio::net::UnixListener> {
    let path = folder.join(NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Before it has a name: from then on others could connect.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)?;
    let short = ShortPath::of(folder)?;
    socket.bind(&SockAddr::unix(short.path.join(NAME))?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(socket.into())
}

/// Reaches the process that serves a data folder. Errors: `NotFound` or `ConnectionRefused` if there is none.
pub async fn connect_in(folder: &Path) -> io::Result<tokio::net::UnixStream> {
    let short = ShortPath::of(folder)?;
    tokio::net::UnixStream::connect(short.path.join(NAME)).await
}

/// A path to a folder that is short enough for the address of a socket in it.
struct ShortPath {
    path: PathBuf,
    /// What the path leads through, if the folder's own is too long.
    _folder: Option<fs::File>,
}

impl ShortPath {
    fn of(folder: &Path) -> io::Result<ShortPath> {
        if folder.as_os_str().len() + 1 + NAME.len() <= PATH_BYTES_MAX {
            return Ok(ShortPath { path: folder.to_owned(), _folder: None });
        }
        let open = fs::File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        Ok(ShortPath { path, _folder: Some(open) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn is_heard(folder: &Path) {
        let listener = listen_in(folder).unwrap();
        let mode = fs::metadata(folder.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut program = connect_in(folder).await.unwrap();
        let (mut heard, _) = listener.accept().await.unwrap();
        program.write_all(b"hello").await.unwrap();
        let mut text = [0; 5];
        heard.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"hello");
    }

    #[tokio::test]
    async fn a_program_is_heard_whatever_was_left_and_however_long_the_path_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(connect_in(dir.path()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        is_heard(dir.path()).await;
        assert_eq!(connect_in(dir.path()).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        is_heard(dir.path()).await;
        let long = dir.path().join("x".repeat(150));
        fs::create_dir(&long).unwrap();
        is_heard(&long).await;
    }
}
