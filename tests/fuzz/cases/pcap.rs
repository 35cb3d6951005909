//! Any bytes are read to their end or refused with a sentence, and what is read is written and read back as it was.

use tungate::engine::Instant;
use tungate::io::pcap::{CaptureError, Content, Reader, Writer};

/// A file that may be a capture.
pub(crate) fn run(data: &[u8]) {
    let mut reader = match Reader::new(data) {
        Ok(reader) => reader,
        Err(error) => return check(&error, data.len()),
    };
    let (mut packets, mut frames, mut bytes) = (Vec::new(), 0, 0);
    loop {
        match reader.next_frame() {
            Ok(Some(frame)) => {
                frames += 1;
                if let Content::Ip(packet) = frame.content {
                    bytes += packet.len();
                    packets.push((frame.at, packet.to_vec()));
                }
            }
            Ok(None) => break,
            Err(error) => {
                check(&error, data.len());
                break;
            }
        }
    }
    // Each record takes at least its header of the file.
    assert!(frames * 12 <= data.len() && bytes <= data.len(), "{frames} frames of {bytes} bytes");
    written_and_read_back(&packets);
}

fn check(error: &CaptureError, len: usize) {
    assert!(!error.to_string().is_empty());
    match error {
        CaptureError::Cut { offset } | CaptureError::Nonsense { offset, .. } => {
            assert!(*offset <= len as u64, "{error:?} behind the end at {len}");
        }
        CaptureError::NotACapture { start } => assert!(start.len() <= 4),
        CaptureError::LinkType(_) => {}
        CaptureError::Read(error) => panic!("memory cannot fail: {error}"),
    }
}

fn written_and_read_back(packets: &[(Instant, Vec<u8>)]) {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for (at, packet) in packets {
        writer.packet(*at, packet).unwrap();
    }
    assert_eq!(writer.written(), packets.len() as u64);
    let file = writer.finish().unwrap();
    let mut reader = Reader::new(&file[..]).unwrap();
    for (at, packet) in packets {
        let frame = reader.next_frame().unwrap().expect("as many as were written");
        // Seconds wrap in 2106.
        let wrapped = at.as_micros() % (1_000_000 << 32);
        assert_eq!((frame.at.as_micros(), frame.content), (wrapped, Content::Ip(packet)));
    }
    assert_eq!(reader.next_frame().unwrap(), None);
}
