//! A web server on the loopback for a folder, with faults on demand.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// What the server does with the next request for a path that ends so.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Half of the file, then the end.
    Cut,
    /// An answer of this status.
    Status(u16),
    /// Another byte in the middle.
    Flip,
    /// No answer at all, and an open connection.
    Silence,
    /// A redirect to the same path, then the file.
    Redirect,
}

/// A running server; ends with the test's process.
pub(crate) struct Server {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    folder: PathBuf,
    faults: Vec<(String, Fault)>,
    requests: Vec<Vec<String>>,
    connections: usize,
}

impl Server {
    pub(crate) fn start(folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State {
            folder: folder.to_owned(),
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&shared);
                shared.lock().expect("no panic").connections += 1;
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { port, state }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next request for a path that ends with `path` meets a fault.
    pub(crate) fn fail(&self, path: &str, fault: Fault) {
        self.state
            .lock()
            .expect("no panic")
            .faults
            .push((path.to_owned(), fault));
    }

    /// The requests so far: the request line, then its headers.
    pub(crate) fn requests(&self) -> Vec<Vec<String>> {
        self.state.lock().expect("no panic").requests.clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.state.lock().expect("no panic").connections
    }
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
    let mut writer = stream;
    loop {
        let mut request = Vec::new();
        loop {
            let mut line = String::new();
            match reader.read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) if line.trim().is_empty() => break,
                Ok(_) => request.push(line.trim().to_owned()),
            }
        }
        let Some(answer) = answer(&request, state) else {
            return;
        };
        let is_whole = writer.write_all(&answer.bytes).is_ok();
        if !is_whole || answer.ends {
            return;
        }
    }
}

struct Answer {
    bytes: Vec<u8>,
    /// Whether the connection ends with it.
    ends: bool,
}

fn answer(request: &[String], state: &Mutex<State>) -> Option<Answer> {
    let target = request.first()?.split(' ').nth(1)?.to_owned();
    // The absolute form of a request to a proxy, and the usual one.
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.split_once('/').map(|(_, path)| format!("/{path}"))?,
        None => target,
    };
    let mut state = state.lock().expect("no panic");
    state.requests.push(request.to_vec());
    let at = state
        .faults
        .iter()
        .position(|(suffix, _)| path.ends_with(suffix));
    let fault = at.map(|at| state.faults.remove(at).1);
    let start = request.iter().find_map(|line| {
        let lower = line.to_ascii_lowercase();
        let range = lower.strip_prefix("range: bytes=")?.strip_suffix('-')?;
        range.parse::<usize>().ok()
    });
    let file = std::fs::read(state.folder.join(path.trim_start_matches('/')));
    drop(state);
    if matches!(fault, Some(Fault::Silence)) {
        std::thread::sleep(std::time::Duration::from_secs(30));
        return None;
    }
    let head = |status: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n").into_bytes()
    };
    let whole = |bytes: Vec<u8>| Some(Answer { bytes, ends: false });
    let plain = |status: &str| whole([head(status, 0), b"\r\n".to_vec()].concat());
    match (file, fault) {
        (_, Some(Fault::Status(status))) => plain(&format!("{status} Fault")),
        (_, Some(Fault::Redirect)) => {
            let location = format!("Location: {path}\r\n\r\n");
            whole([head("302 Found", 0), location.into_bytes()].concat())
        }
        (Err(_), _) => plain("404 Not Found"),
        (Ok(body), None) if start.is_some_and(|start| start < body.len()) => {
            let start = start.unwrap_or_default();
            let rest = body.get(start..).unwrap_or_default().to_vec();
            let range = format!(
                "Content-Range: bytes {start}-{}/{}\r\n\r\n",
                body.len() - 1,
                body.len()
            );
            whole(
                [
                    head("206 Partial Content", rest.len()),
                    range.into_bytes(),
                    rest,
                ]
                .concat(),
            )
        }
        (Ok(mut body), fault) => {
            let length = body.len();
            match fault {
                Some(Fault::Cut) => body.truncate(length / 2),
                Some(Fault::Flip) => body[length / 2] ^= 1,
                _ => {}
            }
            let ends = body.len() < length;
            let bytes = [head("200 OK", length), b"\r\n".to_vec(), body].concat();
            Some(Answer { bytes, ends })
        }
    }
}
