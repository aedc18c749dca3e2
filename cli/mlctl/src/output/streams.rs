//! The standard streams: written to at once, or by a thread of their own.
//!
//! A run must go on while the reader of its output does not: a pager that nobody scrolls, a terminal that was stopped
//! with Ctrl-S. So during a run what is said waits in a queue, and one thread writes it in the order it was said.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that may wait; a reader who is further behind than that holds up whoever speaks.
const MOST_WAITING: usize = 8 << 20;
/// Between two tries where another process made the stream non-blocking.
const BUSY: Duration = Duration::from_millis(5);

/// One of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Data.
    Out,
    /// Talk.
    Err,
}

/// Both streams.
pub(super) struct Streams {
    ends: Mutex<Ends>,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// True once a write to stdout found its reader gone.
    unread: AtomicBool,
    /// Why data is lost, when it is.
    lost: Mutex<Option<String>>,
}

struct Ends {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(End, Vec<u8>)>,
    /// Bytes that wait or are being written.
    bytes: usize,
    in_background: bool,
}

impl Streams {
    pub(super) fn new(out: Box<dyn Write + Send>, err: Box<dyn Write + Send>) -> Self {
        Self {
            ends: Mutex::new(Ends { out, err }),
            queue: Mutex::default(),
            changed: Condvar::new(),
            unread: AtomicBool::new(false),
            lost: Mutex::default(),
        }
    }

    /// Writes from now on by a thread of its own. Where the system gives none, writing goes on as before.
    pub(super) fn in_background(self: &Arc<Self>) {
        let streams = Arc::clone(self);
        let work = move || streams.write_what_waits();
        if std::thread::Builder::new().name("output".to_owned()).spawn(work).is_ok() {
            lock(&self.queue).in_background = true;
        }
    }

    fn write_what_waits(&self) {
        let mut queue = lock(&self.queue);
        loop {
            match queue.waiting.pop_front() {
                Some((end, bytes)) => {
                    drop(queue);
                    self.deliver(end, &bytes);
                    queue = lock(&self.queue);
                    queue.bytes -= bytes.len();
                    self.changed.notify_all();
                }
                None => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Says something.
    pub(super) fn write(&self, end: End, bytes: &[u8]) {
        let mut queue = lock(&self.queue);
        if !queue.in_background {
            drop(queue);
            return self.deliver(end, bytes);
        }
        while queue.bytes > MOST_WAITING {
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.bytes += bytes.len();
        queue.waiting.push_back((end, bytes.to_vec()));
        self.changed.notify_all();
    }

    /// Says whether something still waits to be written.
    pub(super) fn is_behind(&self) -> bool {
        lock(&self.queue).bytes > 0
    }

    /// Says whether the reader of stdout was found gone.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// Notes that the reader of stdout is gone.
    pub(super) fn note_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// Says why data is lost, when it is. A reader who went away has seen enough; a full disk has not.
    pub(super) fn lost(&self) -> Option<String> {
        lock(&self.lost).clone()
    }

    fn deliver(&self, end: End, bytes: &[u8]) {
        let mut ends = lock(&self.ends);
        let stream = match end {
            End::Out => &mut ends.out,
            End::Err => &mut ends.err,
        };
        match (end, write_all(stream.as_mut(), bytes)) {
            (End::Out, Err(error)) if error.kind() == ErrorKind::BrokenPipe => self.note_unread(),
            (End::Out, Err(error)) => {
                lock(&self.lost).get_or_insert_with(|| error.to_string());
            }
            // Nobody is left to tell when the stream for telling is gone.
            (End::Err, Err(_)) | (_, Ok(())) => {}
        }
    }
}

/// Writes everything, however often the system puts it off.
fn write_all(stream: &mut dyn Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) => put_off(error)?,
        }
    }
    loop {
        match stream.flush() {
            Ok(()) => return Ok(()),
            Err(error) => put_off(error)?,
        }
    }
}

/// Waits where trying again will help.
#[expect(clippy::disallowed_methods, reason = "the writing thread has no runtime, and holds nobody up")]
fn put_off(error: io::Error) -> io::Result<()> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock => {
            std::thread::sleep(BUSY);
            Ok(())
        }
        _ => Err(error),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A stream that answers each write as it was told, and keeps what it took.
    struct Scripted {
        answers: VecDeque<io::Result<usize>>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = self.answers.pop_front().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            lock(&self.taken).extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn scripted(answers: Vec<io::Result<usize>>) -> (Streams, Arc<Mutex<Vec<u8>>>) {
        let taken = Arc::default();
        let out = Scripted { answers: answers.into(), taken: Arc::clone(&taken) };
        (Streams::new(Box::new(out), Box::new(io::sink())), taken)
    }

    #[test]
    fn what_the_system_puts_off_is_written_all_the_same() {
        let kinds = [ErrorKind::Interrupted, ErrorKind::WouldBlock];
        let mut answers: Vec<io::Result<usize>> = kinds.map(|kind| Err(kind.into())).into();
        answers.insert(1, Ok(2));
        let (streams, taken) = scripted(answers);
        streams.write(End::Out, b"whole");
        assert_eq!((lock(&taken).as_slice(), streams.lost()), (&b"whole"[..], None));
    }

    #[test]
    fn a_full_disk_loses_data_and_a_closed_pipe_does_not() {
        let (full, _) = scripted(vec![Err(ErrorKind::StorageFull.into())]);
        full.write(End::Out, b"x");
        assert!(full.lost().is_some() && !full.is_unread());
        let (closed, _) = scripted(vec![Err(ErrorKind::BrokenPipe.into())]);
        closed.write(End::Out, b"x");
        assert!(closed.lost().is_none() && closed.is_unread());
    }

    /// Takes nothing until it is let go.
    struct Gate(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            lock(&self.1).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_who_pauses_holds_nobody_up_and_misses_nothing() {
        let (open, gate) = mpsc::channel();
        let taken = Arc::default();
        let streams = Arc::new(Streams::new(Box::new(Gate(gate, Arc::clone(&taken))), Box::new(io::sink())));
        streams.in_background();
        for line in ["one\n", "two\n", "three\n"] {
            streams.write(End::Out, line.as_bytes());
        }
        assert!(streams.is_behind() && lock(&taken).is_empty());
        drop(open);
        while streams.is_behind() {
            std::thread::yield_now();
        }
        assert_eq!(lock(&taken).as_slice(), b"one\ntwo\nthree\n");
    }
}
