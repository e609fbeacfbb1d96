//! `portcullis backup`: a copy of the disk store, made by the gateway that runs, or from the file where
//! none does.
//!
//! The store's lock tells which: who can open it copies it, and where it is in use the gateway that has it
//! is asked over its admin listener.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::admin::token::Token;
use crate::clock::Clock;
use crate::config::{Settings, StoreKind};
use crate::secret::LoadError;
use crate::store::disk::{BackupError, DiskStore, OpenError};

/// To connect; a gateway on this machine takes none.
const CONNECT: Duration = Duration::from_secs(5);
/// Longer than the gateway tries.
const ANSWER: Duration = Duration::from_mins(35);
/// Many times an answer.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackupFailure {
    #[error("session.store is \"memory\": there is nothing on disk to back up")]
    Memory,
    #[error(
        "session.store is \"redis\": there is nothing on disk to back up here; Redis has backups of its own"
    )]
    Redis,
    #[error("{}: there is no store yet; the first start makes it", .0.display())]
    NoStore(PathBuf),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Copy(#[from] BackupError),
    #[error("the system gives no threads")]
    Threads(#[source] io::Error),
    #[error("a gateway has the store open and can't be asked: admin.address is \"off\"")]
    AdminOff,
    #[error("{} {source}; run this as the gateway's user or as root", path.display())]
    Token { path: PathBuf, source: LoadError },
    #[error("the gateway's admin listener at {address}: {source}")]
    Ask { address: SocketAddr, source: io::Error },
    #[error("the gateway's admin listener at {address} answered {status}: {detail}")]
    Answer { address: SocketAddr, status: u16, detail: String },
}

/// Makes a backup, moves it to `output` where one is given, and says in one line what it is.
pub(super) fn make(settings: &Settings, output: Option<&Path>) -> Result<String, BackupFailure> {
    let data_dir = &settings.data_dir;
    match settings.store {
        StoreKind::Memory => return Err(BackupFailure::Memory),
        StoreKind::Redis => return Err(BackupFailure::Redis),
        StoreKind::Disk => {}
    }
    if !DiskStore::exists(data_dir).map_err(about(data_dir))? {
        return Err(BackupFailure::NoStore(data_dir.clone()));
    }
    if let Some(output) = output {
        check(output)?;
    }
    let ((sessions, bytes), by) = match copy(data_dir)? {
        Some(made) => (made, "no gateway runs"),
        None => (ask(settings)?, "by the gateway that runs"),
    };
    let made = DiskStore::backup_file(data_dir);
    let file = output.unwrap_or(&made);
    if let Some(output) = output {
        move_to(&made, output).map_err(about(output))?;
    }
    Ok(format!("{}: {sessions} sessions, {bytes} bytes ({by})\n", file.display()))
}

/// Before anything is copied: a folder that is not there is found out at once.
fn check(output: &Path) -> Result<(), BackupFailure> {
    let folder = folder_of(output);
    if !fs::metadata(folder).map_err(about(folder))?.is_dir() {
        return Err(about(folder)(ErrorKind::NotADirectory.into()));
    }
    if output.is_dir() { Err(about(output)(ErrorKind::IsADirectory.into())) } else { Ok(()) }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Copies the store that no gateway has open, and says how many sessions and bytes that are; `None` where
/// one has.
fn copy(data_dir: &Path) -> Result<Option<(u64, u64)>, BackupFailure> {
    let runtime = Runtime::new().map_err(BackupFailure::Threads)?;
    let store = match DiskStore::open(data_dir, Clock::system(), runtime.handle().clone()) {
        Ok(store) => store,
        Err(OpenError::InUse { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let made = runtime.block_on(store.back_up(data_dir))?;
    Ok(Some((made.sessions, made.bytes)))
}

/// Has the gateway copy it; says how many sessions and bytes that are.
fn ask(settings: &Settings) -> Result<(u64, u64), BackupFailure> {
    let address = reachable(settings.admin.ok_or(BackupFailure::AdminOff)?);
    let authorization = Token::authorization(&settings.data_dir)
        .map_err(|source| BackupFailure::Token { path: Token::file(&settings.data_dir), source })?;
    let answer =
        post(address, authorization.expose()).map_err(|source| BackupFailure::Ask { address, source })?;
    let (status, body) = read_answer(&answer)
        .ok_or(BackupFailure::Ask { address, source: ErrorKind::UnexpectedEof.into() })?;
    let number = |name| body.get(name).and_then(Value::as_u64);
    match (number("sessions"), number("bytes")) {
        (Some(sessions), Some(bytes)) if status == 200 => Ok((sessions, bytes)),
        _ => Err(BackupFailure::Answer { address, status, detail: detail_of(&body) }),
    }
}

/// A listener on all addresses is asked at the machine's own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn post(address: SocketAddr, authorization: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, CONNECT)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let head = format!("POST /backup HTTP/1.1\r\nhost: {address}\r\nauthorization: {authorization}\r\n");
    stream.write_all(format!("{head}content-length: 0\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Status and body; `None` where the answer is cut off.
fn read_answer(answer: &str) -> Option<(u16, Value)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.split(' ').next()?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

fn detail_of(body: &Value) -> String {
    let text = ["detail", "reason", "error"].iter().find_map(|name| body.get(name)?.as_str());
    text.unwrap_or("something else than a gateway").to_owned()
}

/// Moves the backup, also to another file system, over an older one in one step.
fn move_to(made: &Path, output: &Path) -> io::Result<()> {
    match fs::rename(made, output) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {}
        moved => return moved.and_then(|()| sync(folder_of(output))),
    }
    let mut draft = output.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let copied = copy_to(made, &draft).and_then(|()| fs::rename(&draft, output));
    if copied.is_err() {
        let _never_made = fs::remove_file(&draft);
        return copied;
    }
    sync(folder_of(output))?;
    fs::remove_file(made)
}

fn copy_to(from: &Path, to: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut File::open(from)?, &mut file)?;
    file.sync_all()
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn about(path: &Path) -> impl FnOnce(io::Error) -> BackupFailure {
    let path = path.to_owned();
    move |source| BackupFailure::File { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whole_or_not_at_all() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
        let whole = format!("{head}{{\"sessions\":3,\"bytes\":4096}}\n");
        let (status, body) = read_answer(&whole).unwrap();
        assert_eq!((status, body["sessions"].as_u64()), (200, Some(3)));
        for cut in ["", "HTTP/1.1 200 OK\r\n", head, "SSH-2.0-OpenSSH\r\n\r\n{}", "HTTP/1.1 x\r\n\r\n{}"] {
            assert!(read_answer(cut).is_none(), "{cut:?}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_at_loopback() {
        let cases = [
            ("0.0.0.0:9321", "127.0.0.1:9321"),
            ("[::]:9321", "[::1]:9321"),
            ("10.0.0.1:9321", "10.0.0.1:9321"),
        ];
        for (address, wanted) in cases {
            assert_eq!(reachable(address.parse().unwrap()).to_string(), wanted);
        }
    }

    #[test]
    fn a_backup_moves_over_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let (made, output) = (folder.path().join("made"), folder.path().join("output"));
        fs::write(&made, "new").unwrap();
        fs::write(&output, "older and longer").unwrap();
        move_to(&made, &output).unwrap();
        assert_eq!(fs::read_to_string(&output).unwrap(), "new");
        assert!(!made.exists());
    }

    #[test]
    fn a_copy_for_another_file_system_is_for_its_owner_only_and_is_never_written_over_something() {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::write(&from, "content").unwrap();
        copy_to(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "content");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(copy_to(&from, &to).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_place_that_is_none_is_told_before_anything_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for place in ["missing/backup", "file/backup", ""] {
            assert!(check(&folder.path().join(place)).is_err(), "{place:?}");
        }
        check(&folder.path().join("backup")).unwrap();
        check(Path::new("backup-in-the-present-folder")).unwrap();
    }
}
