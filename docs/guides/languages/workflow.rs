// usage: workflow MOUNTPOINT declare|consume N|produce|write
use std::{env, fs, io};

const BUSY: i32 = 16;

fn consume(number: &str) -> io::Result<()> {
    let numbers = fs::read_to_string("guide/numbers")?; // waits until it is written
    let sum: i64 = numbers.split_whitespace().map(|word| word.parse::<i64>().unwrap()).sum();
    let token = match fs::read_to_string(".promisefs/once/guide/token") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "-".to_string(),
        other => other?, // one of all consumers gets it
    };
    let handle = format!(".promisefs/ref/guide-{number}");
    fs::hard_link(".promisefs/own/guide-list", &handle)?; // nobody writes it now
    let list = fs::read_to_string(&handle)?;
    fs::remove_file(&handle)?;
    fs::write(format!("guide/result-{number}"), format!("{sum} {token} {list}\n"))
}

fn produce() -> io::Result<()> {
    fs::write("guide/token", "token")?;
    fs::write(".promisefs/own/guide-list", "1 2 3")?; // an object without a key
    fs::write("guide/scratch", "scratch")?;
    fs::write(".promisefs/attributes/lease/guide/scratch", "500ms\n")?;
    fs::write("guide/numbers", (1..=10).map(|n| format!("{n}\n")).collect::<String>()) // wakes the consumers
}

fn write() -> io::Result<()> {
    fs::hard_link(".promisefs/own/guide-list", ".promisefs/mut/guide")?; // nobody else reads or writes it now
    let refused = fs::read_to_string(".promisefs/own/guide-list").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(BUSY));
    fs::write(".promisefs/mut/guide", "1 2 3 4")?;
    fs::remove_file(".promisefs/mut/guide")?;
    fs::rename(".promisefs/own/guide-list", "guide/list")
}

fn main() -> io::Result<()> {
    let words: Vec<String> = env::args().collect();
    env::set_current_dir(&words[1])?;
    match words[2].as_str() {
        "declare" => fs::write(".promisefs/future/guide/numbers", ""),
        "consume" => consume(&words[3]),
        "produce" => produce(),
        _ => write(),
    }
}
