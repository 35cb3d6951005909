//! The keys that two gateways share: what stands in the key file.
//!
//! A line a key, `ID HEX`: a number from 1 to 255, and 32 bytes or more in hexadecimal. The first key seals; what is sealed
//! with any of them is opened. So keys change without a moment in which the two do not understand each other: add the
//! new key below the old one on both, then move it to the top on both, then remove the old one from both.

use std::fmt;

/// Least bytes of a key.
const LEAST: usize = 32;
/// Most bytes of a key: as many as HMAC-SHA256 takes without hashing them first.
const MOST: usize = 64;
/// Most keys of a file.
const MOST_KEYS: usize = 8;

/// The keys of a file: at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyRing(Vec<Key>);

/// A key and its number.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) id: u8,
    pub(super) secret: Vec<u8>,
}

/// Says how many there are, and no more.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.0.len())
    }
}

impl KeyRing {
    /// Reads a key file's text.
    ///
    /// # Errors
    /// A sentence that says which line is wrong and why, and quotes nothing of it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut keys: Vec<Key> = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = key(line).map_err(|why| format!("line {}: {why}", n + 1))?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(format!("line {}: a second key has the number {}", n + 1, key.id));
            }
            keys.push(key);
        }
        match keys.len() {
            0 => Err("there is no key in it".to_owned()),
            1..=MOST_KEYS => Ok(Self(keys)),
            more => Err(format!("there are {more} keys in it, {MOST_KEYS} at most")),
        }
    }

    /// A file with one key of these bytes.
    pub fn text(id: u8, secret: [u8; LEAST]) -> String {
        let mut text = String::from(
            "# Keys of a pair of gateways: the same file on both, readable by nobody else.\n\
             # NUMBER HEX, a line a key. The first one seals, every one opens.\n",
        );
        text.push_str(&format!("{id} "));
        secret.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        text.push('\n');
        text
    }

    /// The one that seals.
    pub(super) fn first(&self) -> &Key {
        &self.0[0]
    }

    pub(super) fn get(&self, id: u8) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    pub(super) fn all(&self) -> &[Key] {
        &self.0
    }
}

fn key(line: &str) -> Result<Key, String> {
    let mut words = line.split_whitespace();
    let (Some(id), Some(hex), None) = (words.next(), words.next(), words.next()) else {
        return Err("it is not a number and a key".to_owned());
    };
    let id = id.parse().ok().filter(|id| *id != 0);
    let id = id.ok_or("it begins with no number from 1 to 255")?;
    let secret = bytes(hex).ok_or("the key is not written in pairs of hexadecimal digits")?;
    if !(LEAST..=MOST).contains(&secret.len()) {
        return Err(format!("the key has {} bytes, {LEAST} to {MOST} are possible", secret.len()));
    }
    if secret.iter().all(|byte| *byte == secret[0]) {
        return Err("the key is the same byte all over; `tungate ha keygen` makes a good one".to_owned());
    }
    Ok(Key { id, secret })
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).and_then(|n| u8::try_from(n).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn what_is_written_is_read_again() {
        let secret = std::array::from_fn(|n| u8::try_from(n).unwrap());
        let ring = KeyRing::parse(&KeyRing::text(3, secret)).unwrap();
        assert_eq!((ring.first().id, ring.first().secret.as_slice()), (3, secret.as_slice()));
    }

    #[test]
    fn the_first_key_seals_and_all_are_there() {
        let ring = KeyRing::parse(&format!("# new\n2 {A}\n\n  1 {A}ab \n")).unwrap();
        assert_eq!(ring.first().id, 2);
        assert_eq!(ring.all().len(), 2);
        assert_eq!(ring.get(1).unwrap().secret.len(), 33);
        assert!(ring.get(3).is_none());
        assert_eq!(format!("{ring:?}"), "KeyRing(2 keys)", "a secret shows nowhere");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        for (text, why) in [
            ("", "there is no key in it"),
            ("# nothing\n", "there is no key in it"),
            (A, "line 1: it is not a number and a key"),
            (&format!("\n0 {A}"), "line 2: it begins with no number from 1 to 255"),
            (&format!("256 {A}"), "line 1: it begins with no number from 1 to 255"),
            (&format!("1 {A}x"), "line 1: the key is not written in pairs of hexadecimal digits"),
            (&format!("1 {A}a"), "line 1: the key is not written in pairs of hexadecimal digits"),
            ("1 0011", "line 1: the key has 2 bytes, 32 to 64 are possible"),
            (&format!("1 {A}{A}00"), "line 1: the key has 65 bytes, 32 to 64 are possible"),
            (&format!("1 {A}\n1 {A}"), "line 2: a second key has the number 1"),
            (
                &format!("1 {}", "00".repeat(32)),
                "line 1: the key is the same byte all over; `tungate ha keygen` makes a good one",
            ),
        ] {
            assert_eq!(KeyRing::parse(text).unwrap_err(), why, "{text}");
        }
        let nine: String = (1..10).map(|n| format!("{n} {A}\n")).collect();
        assert_eq!(KeyRing::parse(&nine).unwrap_err(), "there are 9 keys in it, 8 at most");
    }
}
