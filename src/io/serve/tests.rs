use std::cell::RefCell;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use super::*;
use crate::admin::{CountRow, FlowFilter};

/// A folder that goes when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tungate-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("admin.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server with its poll, driven from the test's own thread: both ends see each event in turn.
struct Daemon {
    server: Server,
    poll: Poll,
    asked: RefCell<Vec<Request>>,
    clock: u64,
}

/// Parts of the answer to `ShowFlows`: more than any socket buffer takes.
const PARTS: u64 = 20_000;

impl Daemon {
    fn start(path: &Path) -> Self {
        let mut server = Server::bind(path).unwrap();
        let poll = Poll::new().unwrap();
        server.register(poll.registry(), Token(7)).unwrap();
        Self { server, poll, asked: RefCell::default(), clock: 0 }
    }

    /// Serves until nothing more happens.
    fn serve(&mut self) {
        while self.serve_a_round() {}
    }

    /// Gives a turn to each client that something has happened to; false if there is none.
    fn serve_a_round(&mut self) -> bool {
        let mut events = Events::with_capacity(16);
        self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        for event in &events {
            self.clock += 1;
            let now = Instant::from_micros(self.clock);
            self.server.handle(self.poll.registry(), event.token(), now, &mut |request| answer(&self.asked, request));
        }
        !events.is_empty()
    }

    fn finish(&mut self) {
        self.server.finish(&mut self.poll, &mut |request| answer(&self.asked, request));
    }
}

fn answer(asked: &RefCell<Vec<Request>>, request: Request) -> Responses {
    let parts = if matches!(request, Request::ShowFlows(_)) { PARTS } else { 1 };
    asked.borrow_mut().push(request);
    Box::new((1..=parts).map(|flows| Response::Count(CountRow { flows })))
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// What has arrived so far.
fn arrived(mut stream: &UnixStream) -> Vec<u8> {
    stream.set_nonblocking(true).unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
    }
    stream.set_nonblocking(false).unwrap();
    bytes
}

const ONE: &[u8] = b"{\"version\":1,\"more\":false,\"response\":{\"count\":{\"flows\":1}}}\n";

#[test]
fn questions_are_answered_one_after_the_other() {
    let folder = Folder::new("questions");
    let mut daemon = Daemon::start(&folder.socket());
    let mut client = connect(&folder.socket());
    let question = Question::line(Request::ShowServices);
    client.write_all(&question).unwrap();
    client.write_all(&question[..9]).unwrap();
    daemon.serve();
    assert_eq!(arrived(&client), ONE);
    client.write_all(&question[9..]).unwrap();
    daemon.serve();
    assert_eq!(arrived(&client), ONE);
    assert_eq!(*daemon.asked.borrow(), [Request::ShowServices, Request::ShowServices]);
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() {
    let folder = Folder::new("slow");
    let mut daemon = Daemon::start(&folder.socket());
    let mut slow = connect(&folder.socket());
    slow.write_all(&Question::line(Request::ShowFlows(FlowFilter::default()))).unwrap();
    daemon.serve();
    let mut quick = connect(&folder.socket());
    quick.write_all(&Question::line(Request::ShowServices)).unwrap();
    daemon.serve();
    assert_eq!(arrived(&quick), ONE);

    let mut parts = Vec::new();
    loop {
        let bytes = arrived(&slow);
        if bytes.is_empty() {
            break;
        }
        parts.extend(bytes);
        daemon.serve();
    }
    let lines: Vec<Answer> =
        parts.split_inclusive(|b| *b == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect();
    assert_eq!(lines.len() as u64, PARTS);
    assert!(lines.iter().rev().skip(1).all(|line| line.more), "all but the last announce another");
    assert!(!lines.last().unwrap().more);
}

/// Thousands of short questions fit into a socket's buffer, and each may take a look at every flow.
#[test]
fn a_client_that_asks_much_at_once_holds_up_nobody() {
    let folder = Folder::new("eager");
    let mut daemon = Daemon::start(&folder.socket());
    let mut eager = connect(&folder.socket());
    let mut quick = connect(&folder.socket());
    daemon.serve();
    let question = Question::line(Request::CountFlows(FlowFilter::default()));
    eager.write_all(&question.repeat(100)).unwrap();
    quick.write_all(&Question::line(Request::ShowServices)).unwrap();
    while arrived(&quick).is_empty() {
        assert!(daemon.serve_a_round());
    }
    assert!(daemon.asked.borrow().len() <= 4, "{} questions before the other client's", daemon.asked.borrow().len());
    let mut answers = Vec::new();
    while answers.len() < 100 * ONE.len() {
        daemon.serve();
        let more = arrived(&eager);
        assert!(!more.is_empty(), "{} bytes of the answers are missing", 100 * ONE.len() - answers.len());
        answers.extend(more);
    }
    assert_eq!(answers, ONE.repeat(100));
}

/// Even if the daemon had not come to look yet.
#[test]
fn what_was_asked_before_the_end_is_answered() {
    let folder = Folder::new("end");
    let mut daemon = Daemon::start(&folder.socket());
    let mut known = connect(&folder.socket());
    let idle = connect(&folder.socket());
    daemon.serve();
    known.write_all(&Question::line(Request::ShowServices).repeat(3)).unwrap();
    daemon.serve_a_round();
    let mut late = connect(&folder.socket());
    late.write_all(&Question::line(Request::ShowServices)).unwrap();
    let mut deaf = connect(&folder.socket());
    deaf.write_all(&Question::line(Request::ShowFlows(FlowFilter::default()))).unwrap();
    daemon.finish();
    assert_eq!(arrived(&known), ONE.repeat(3));
    assert_eq!(arrived(&late), ONE);
    assert!(arrived(&idle).is_empty());
    assert!(daemon.server.clients.is_empty(), "one that reads nothing holds up the end for a moment only");
}

#[test]
fn the_stillest_client_makes_room_for_a_new_one() {
    let folder = Folder::new("many");
    let mut daemon = Daemon::start(&folder.socket());
    let mut clients: Vec<UnixStream> = Vec::new();
    for _ in 0..MAX_CLIENTS {
        clients.push(connect(&folder.socket()));
        daemon.serve();
    }
    clients[0].write_all(&Question::line(Request::ShowServices)).unwrap();
    daemon.serve();
    assert_eq!(arrived(&clients[0]), ONE);
    let mut newcomer = connect(&folder.socket());
    newcomer.write_all(&Question::line(Request::ShowServices)).unwrap();
    daemon.serve();
    assert_eq!(arrived(&newcomer), ONE);
    assert_eq!(daemon.server.clients.len(), MAX_CLIENTS);
    assert_eq!((&clients[1]).read(&mut [0; 1]).unwrap(), 0, "the second had moved least lately");
    clients[0].write_all(&Question::line(Request::ShowServices)).unwrap();
    daemon.serve();
    assert_eq!(arrived(&clients[0]), ONE, "the first is still served");
}

/// The plan of ten thousand backends: its text is a question of more than a megabyte.
#[test]
fn a_long_question_is_taken_piece_by_piece() {
    let folder = Folder::new("long");
    let mut daemon = Daemon::start(&folder.socket());
    let text = "{ name = \"backend\", address = \"10.0.0.1:8080\" },\n".repeat(30_000);
    let request = Request::Plan { source: Some(crate::control::history::Source { file: "new.toml".into(), text }) };
    let line = Question::line(request.clone());
    let client = connect(&folder.socket());
    client.set_nonblocking(true).unwrap();
    let (mut left, mut turns) = (&line[..], 0);
    while !left.is_empty() {
        match (&client).write(left) {
            Ok(n) => left = &left[n..],
            Err(_) => turns += u32::from(daemon.serve_a_round()),
        }
    }
    daemon.serve();
    assert_eq!(arrived(&client), ONE);
    assert_eq!(*daemon.asked.borrow(), [request]);
    assert!(turns > 1, "others have their turn between");
}

#[test]
fn what_is_no_question_is_refused_and_the_client_sent_away() {
    let folder = Folder::new("refused");
    let mut daemon = Daemon::start(&folder.socket());
    for (sent, reason) in
        [(b"GET / HTTP/1.1\r\n\r\n".to_vec(), "no question"), (vec![b'x'; MAX_QUESTION + 4097], "at most")]
    {
        let client = connect(&folder.socket());
        client.set_nonblocking(true).unwrap();
        let mut left = &sent[..];
        while !left.is_empty() {
            match (&client).write(left) {
                Ok(n) => left = &left[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => daemon.serve(),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "sent away before the end");
                    break;
                }
            }
        }
        daemon.serve();
        let mut answer = [0; 4096];
        let read = (&client).read(&mut answer).unwrap_or(0);
        let text = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(read == 0 || text.contains(reason), "{text}");
        assert!(daemon.server.clients.is_empty());
    }
}

#[test]
fn the_file_has_mode_0660_and_goes_with_the_server() {
    let folder = Folder::new("mode");
    let path = folder.0.join("made").join("admin.sock");
    let server = Server::bind(&path).unwrap();
    let file = fs::symlink_metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o660);
    drop(server);
    assert!(!path.exists());
}

#[test]
fn missing_folders_are_made_and_go_with_the_server_unless_somebody_uses_them() {
    let folder = Folder::new("folders");
    let outer = folder.0.join("outer");
    let path = outer.join("inner").join("admin.sock");
    drop(Daemon::start(&path));
    assert!(!outer.exists() && folder.0.exists(), "what was there before stays");
    let daemon = Daemon::start(&path);
    fs::write(outer.join("note"), "mine").unwrap();
    drop(daemon);
    assert!(outer.join("note").exists() && !path.parent().unwrap().exists());
}

#[test]
fn an_impossible_place_is_told_with_what_to_do_and_nothing_is_left_there() {
    let folder = Folder::new("impossible");
    fs::write(folder.0.join("file"), "").unwrap();
    let told = |path: &Path| Server::bind(path).unwrap_err().to_string();
    let blocked = folder.0.join("file").join("made").join("admin.sock");
    assert!(told(&blocked).ends_with("Not a directory; something on the way is no folder"), "{}", told(&blocked));
    let long = folder.0.join("made").join("x".repeat(108));
    assert!(told(&long).starts_with("the name of a socket has at most 107 bytes"), "{}", told(&long));
    assert!(!folder.0.join("made").exists());
    // A place that takes no files at all.
    let error = told(Path::new("/proc/tungate/admin.sock"));
    assert!(error.contains("/proc/tungate") && !error.contains("os error"), "{error}");
}

#[test]
fn only_a_socket_that_nobody_answers_on_is_replaced() {
    let folder = Folder::new("stale");
    let path = folder.socket();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a listener of the standard library leaves its file behind, as a crash does");
    let first = Server::bind(&path).unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::Taken(_))));
    assert!(path.exists(), "the living one keeps its file");
    drop(first);

    fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::bind(&path), Err(BindError::NotASocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
