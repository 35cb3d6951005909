//! Floors stay floors: a room imports only from its own floor and the floors below (the map in `src/lib.rs`).

#![allow(clippy::unwrap_used, reason = "a test may fail that way")]

use std::fs;
use std::path::{Path, PathBuf};

/// Bottom to top. `proxy` stands beside `control`: both see the engine, neither sees the other.
const FLOORS: &[(&str, u8)] = &[
    ("manual", 0),
    ("wire", 0),
    ("config", 1),
    ("engine", 2),
    ("control", 3),
    ("proxy", 3),
    ("admin", 4),
    ("io", 5),
    ("cli", 6),
];

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that a source text names by `crate::ROOM`, with the line.
fn rooms_named(text: &str) -> Vec<(usize, String)> {
    let mut named = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap();
        for part in code.split("crate::").skip(1) {
            let names = part.strip_prefix('{').map_or(part, |list| list.split('}').next().unwrap());
            for name in names.split(',') {
                let room: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                named.push((n + 1, room));
                if !part.starts_with('{') {
                    break;
                }
            }
        }
    }
    named
}

#[test]
fn imports_go_down_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    assert!(files.len() > 5, "the walk found too little to mean anything");

    let mut upward = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&source).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        let Some(own) = floor(room) else { continue };
        for (line, named) in rooms_named(&fs::read_to_string(&file).unwrap()) {
            let sideways = floor(&named) == Some(own) && named != room;
            if floor(&named).is_some_and(|other| other > own) || sideways {
                upward.push(format!("{}:{line}: {room} imports {named}", file.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn the_reader_sees_what_it_should() {
    assert_eq!(
        rooms_named("use crate::{wire, io::sys};\nlet x = crate::cli::main(); // crate::admin"),
        [(1, "wire".to_string()), (1, "io".to_string()), (2, "cli".to_string()),]
    );
}
