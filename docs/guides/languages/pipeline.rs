// A producer and two consumers, started in any order; see README.md. Run it in the root of a mount, after mkdir demo:
//	pipeline consumer one & pipeline consumer two & pipeline producer
use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};

const OWN: &str = ".promisefs/own/demo-list";
const MUT: &str = ".promisefs/mut/demo-writer";
const ECANCELED: i32 = 125; // std has no name for it

/// What waits, waits in open(2), and with it the thread.
fn get(path: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim_end().to_string())
}

/// What is written counts when it is closed. Rust does not say when a close fails; sync_all does so before it.
fn put(path: &str, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn consumer(me: &str) -> Result<(), Box<dyn Error>> {
    // A future that nobody has declared: the open waits until the key is published. Whoever comes late need not wait.
    let mut sum = 0;
    for line in get(".promisefs/await/demo/numbers")?.lines() {
        sum += line.parse::<u32>()?;
    }
    println!("{me}: the sum is {sum}");

    // A one-time object: the open takes it, of all who try one gets it. The others find no such file.
    match get(".promisefs/once/demo/ticket") {
        Ok(ticket) => println!("{me}: the ticket is mine: {ticket}"),
        Err(error) if error.kind() == ErrorKind::NotFound => println!("{me}: the ticket is gone"),
        Err(error) => return Err(error.into()),
    }

    // A borrow is a hard link. As long as it is there nobody can write the list or evict it.
    let borrow = format!(".promisefs/ref/demo-{me}");
    fs::hard_link(OWN, &borrow)?;
    println!("{me}: scratch says: {}", get("demo/scratch/note")?);
    put(&format!("demo/answer-{me}"), &format!("{sum}\n"))?; // keeps the promise that the producer waits for

    // A future that nobody will ever write, in a directory with a lease: the open waits until the lease is over.
    match get("demo/scratch/never") {
        Ok(_) => return Err("demo/scratch/never: somebody has written it".into()),
        Err(error) if error.raw_os_error() == Some(ECANCELED) || error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    match get("demo/scratch/note") {
        Ok(note) => return Err(format!("demo/scratch/note is still there: {note}").into()),
        Err(error) if error.kind() == ErrorKind::NotFound => println!("{me}: scratch is gone"),
        Err(error) => return Err(error.into()),
    }

    println!("{me}: the list is {}", get(&borrow)?); // a writer is in line by now, and does not get in
    fs::remove_file(&borrow)?; // until the last borrow is dropped
    Ok(())
}

fn producer() -> Result<(), Box<dyn Error>> {
    put(OWN, "1 2 3\n")?; // an object whose owner is a handle, not a key
    fs::create_dir("demo/scratch")?;
    put("demo/scratch/note", "not for long\n")?;
    for name in ["scratch/never", "answer-one", "answer-two"] {
        put(&format!(".promisefs/future/demo/{name}"), "")?; // an empty file declares a future
    }
    put("demo/ticket", "admit one\n")?;
    let numbers: String = (1..=100).map(|number| format!("{number}\n")).collect();
    put("demo/numbers", &numbers)?; // published, whole, when it is closed: this wakes the consumers

    for name in ["one", "two"] {
        let answer = get(&format!("demo/answer-{name}"))?; // waits for the future
        println!("producer: {name} answers {answer}");
    }

    // To write the list takes the only borrow there is. Both consumers borrow it now, so get in line.
    fs::hard_link(OWN, ".promisefs/await-mut/demo-writer")?;
    put(".promisefs/attributes/lease/demo/scratch/.dir", "100ms\n")?; // the directory goes by itself
    put(MUT, "1 2 3 4\n")?; // the open waits for the turn
    fs::remove_file(MUT)?;
    println!("producer: the list is {}", get(OWN)?);
    fs::remove_file(OWN)?; // nobody borrows it: evicted
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["producer"] => producer(),
        ["consumer", name] => consumer(name),
        _ => Err("usage: pipeline producer | consumer NAME".into()),
    }
}
