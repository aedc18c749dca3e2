//! What a program can take from its machine: memory, descriptors, the disk by way of its log.

use std::fs::File;
use std::io::Write as _;
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use tokio::time::sleep;

use crate::knobs::Knobs;
use crate::say;

/// Between two bites.
const PAUSE: Duration = Duration::from_millis(20);
/// Lines of one write to the log.
const LINES: usize = 200;

/// Begins to take what the environment says.
pub(crate) fn begin(knobs: &Knobs) {
    if let Some(mib) = knobs.memory_mib {
        tokio::spawn(eat(mib));
    }
    if let Some(files) = knobs.leak_files {
        tokio::spawn(leak(files));
    }
    if let Some(mib) = knobs.flood_mib {
        std::thread::spawn(move || flood(mib << 20));
    }
}

/// Takes memory and touches it, a mebibyte at a time.
async fn eat(mib: usize) {
    let mut eaten = Vec::new();
    while eaten.len() < mib {
        eaten.push(vec![1_u8; 1 << 20]);
        if eaten.len().is_multiple_of(4) {
            sleep(PAUSE).await;
        }
    }
    say(&format!("{} MiB are in use", eaten.len()));
    std::future::pending::<()>().await;
}

/// Opens files until the system refuses, and never closes one.
async fn leak(most: u64) {
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, most, most) {
        say(&format!("limit the open files to {most}: {error}"));
    }
    let mut open = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) => {
                say(&format!("open one file more than {}: {error}", open.len()));
                // Whatever becomes free is taken again.
                sleep(Duration::from_secs(1)).await;
            }
        }
        if open.len().is_multiple_of(8) {
            sleep(PAUSE).await;
        }
    }
}

/// Writes lines as fast as they are read.
fn flood(bytes: usize) {
    let mut number = 0_u64;
    let mut written = 0;
    let mut out = std::io::stdout().lock();
    while written < bytes {
        let mut text = String::with_capacity(LINES * 80);
        for _ in 0..LINES {
            number += 1;
            text.push_str(&format!("flood: line {number} of far too many, which nobody will ever read\n"));
        }
        if out.write_all(text.as_bytes()).is_err() {
            return;
        }
        written += text.len();
    }
}
