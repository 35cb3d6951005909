use std::net::{Ipv4Addr, TcpListener};
use std::thread::JoinHandle;

use super::*;

/// A server on the loopback that has these answers, one a connection; gives back what it was asked.
fn server(answers: Vec<Option<String>>) -> (Http, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = Url::read(&format!("http://{}/web", listener.local_addr().unwrap())).unwrap();
    let serve = move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = [0; 1500];
            let len = stream.read(&mut bytes).unwrap();
            asked.push(String::from_utf8_lossy(&bytes[..len]).into_owned());
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).unwrap(),
                None => drop(stream.read(&mut bytes)), // until nobody waits any more
            }
        }
        asked
    };
    let wait = Duration::from_secs(30);
    (Http::new(HttpSource { url, wait }, None), sys::spawn("server", serve).unwrap())
}

fn list(head: &str, addresses: &[&str]) -> Option<String> {
    let entries: Vec<_> = addresses.iter().map(|address| format!("{{\"address\":\"{address}\"}}")).collect();
    let body = format!("{{\"backends\":[{}]}}", entries.join(","));
    Some(format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// Asks at that second: how many backends there are, or why nobody knows.
fn says(http: &mut Http, leave: &Leave) -> Result<usize, String> {
    http.ask(sys::now(), leave).expect("nobody has left").map(|found| found.len())
}

#[test]
fn a_list_is_asked_for_with_what_is_known_of_it_and_told_again_when_it_holds() {
    let not_modified = Some("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n".to_owned());
    let answers = vec![
        list("ETag: \"a\"\r\n", &["10.0.0.1"]),
        not_modified,
        list("X-Consul-Index: 9\r\n", &["10.0.0.1", "10.0.0.2"]),
        list("X-Consul-Index: 8\r\n", &["10.0.0.1"]),
        list("X-Consul-Index: 8\r\n", &["10.0.0.1"]),
        list("", &[]),
    ];
    let (mut http, server) = server(answers);
    let leave = Leave::never();
    assert_eq!(says(&mut http, &leave), Ok(1));
    assert!(http.patience() <= APART, "it may wait for another");
    assert_eq!(says(&mut http, &leave), Ok(1));
    assert_eq!(http.patience(), INTERVAL, "it does not");
    assert_eq!([(); 4].map(|()| says(&mut http, &leave)), [Ok(2), Ok(1), Ok(1), Ok(0)]);
    assert_eq!(http.patience(), INTERVAL, "there is nothing to wait for");
    let asked = server.join().unwrap();
    let has = |n: usize, wanted: &str| assert!(asked[n].contains(wanted), "{n}: {}", asked[n]);
    has(0, "GET /web HTTP/1.1\r\n");
    has(1, "If-None-Match: \"a\"\r\nPrefer: wait=6\r\n");
    has(2, "If-None-Match: \"a\"\r\n");
    has(3, "GET /web?index=9&wait=6s HTTP/1.1\r\n");
    has(4, "GET /web HTTP/1.1\r\n");
    has(5, "GET /web?index=8&wait=6s HTTP/1.1\r\n");
    http.known = Some(Known { found: Vec::new(), mark: Some(Mark::Index(1)), since: Instant::ZERO });
    assert_eq!(http.mark(Instant::from_micros(60_000_000)).unwrap().1, Duration::from_secs(30), "it has settled");
}

#[test]
fn what_is_no_list_is_a_failure_and_asked_for_anew() {
    let answers = [
        ("HTTP/1.1 503 Busy\r\n\r\n", "HTTP 503"),
        ("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", "HTTP 302: the list is elsewhere"),
        ("HTTP/1.1 200 OK\r\n\r\n<html>", "expected value"),
        ("HTTP/1.1 200 OK\r\n\r\n[]", "invalid"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"backends\":[]}", "cut off"),
        ("garbage", "by HTTP"),
    ];
    let first = list("X-Consul-Index: 9\r\n", &["10.0.0.1"]);
    let bodies = answers.iter().map(|(answer, _)| Some((*answer).to_owned()));
    let (mut http, server) = server([first].into_iter().chain(bodies).collect());
    let leave = Leave::never();
    assert_eq!(says(&mut http, &leave), Ok(1));
    for (answer, why) in answers {
        let said = says(&mut http, &leave).unwrap_err();
        assert!(said.contains(why), "{answer:?}: {said}");
        assert_eq!(http.patience(), RETRY);
    }
    let asked = server.join().unwrap();
    assert!(asked[1].contains("index=9") && !asked[2].contains("index"), "{asked:?}");
    assert!(says(&mut http, &leave).unwrap_err().contains("refused"), "nobody is there");
}

#[test]
fn whoever_is_not_wanted_any_more_leaves_a_server_that_waits() {
    let (mut http, server) = server(vec![list("X-Consul-Index: 9\r\n", &["10.0.0.1"]), None]);
    assert_eq!(says(&mut http, &Leave::never()), Ok(1));
    let (stays, leave) = std::sync::mpsc::channel();
    drop(stays);
    assert!(http.ask(sys::now(), &Leave(leave)).is_none());
    server.join().unwrap();
}
