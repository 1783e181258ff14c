//! Text for people that does not end the program when nobody can read it any more: a
//! closed terminal (EIO) or an ended ssh session (EPIPE) must not keep a change of the
//! machine from being finished or undone, as the panic of the macros of std would.
//!
//! What a command was asked to print, such as a status, is for [`answer!`](crate::answer).

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write as _};
use std::sync::Mutex;

/// Why the answer is not whole.
static UNWRITTEN: Mutex<Option<io::Error>> = Mutex::new(None);

/// As [`std::eprint`], but for a failure to write.
#[macro_export]
macro_rules! eprint {
    ($($text:tt)*) => { $crate::print::to_stderr(::std::format_args!($($text)*)) };
}

/// As [`std::eprintln`], but for a failure to write.
#[macro_export]
macro_rules! eprintln {
    ($($text:tt)*) => {
        $crate::print::to_stderr(::std::format_args!("{}\n", ::std::format_args!($($text)*)))
    };
}

/// As [`std::println`], but for a failure to write; colours only reach a terminal.
#[macro_export]
macro_rules! println {
    ($($text:tt)*) => {
        $crate::print::to_stdout(::std::format_args!("{}\n", ::std::format_args!($($text)*)))
    };
}

/// As [`println!`](crate::println), for what a command was asked to print: when it ends,
/// [`crate::exit::report`] says that this could not be written. A reader that has read enough is
/// no failure.
#[macro_export]
macro_rules! answer {
    ($($text:tt)*) => {
        $crate::print::to_answer(::std::format_args!("{}\n", ::std::format_args!($($text)*)))
    };
}

/// Writes to standard error, if that can be done.
pub fn to_stderr(text: Arguments<'_>) {
    let _ = std::io::stderr().write_fmt(text);
}

/// Writes to standard output without the colours that it can't show, if that can be done.
pub fn to_stdout(text: Arguments<'_>) {
    let _ = anstream::stdout().write_fmt(text);
}

/// Writes to standard output without the colours that it can't show, and keeps why it can't.
pub fn to_answer(text: Arguments<'_>) {
    if let Err(error) = anstream::stdout().write_fmt(text)
        && error.kind() != ErrorKind::BrokenPipe
    {
        UNWRITTEN.lock().expect("nothing panics while it holds the error").get_or_insert(error);
    }
}

/// Why a part of the answer could not be written, if so.
pub(crate) fn unwritten() -> Option<io::Error> {
    UNWRITTEN.lock().expect("nothing panics while it holds the error").take()
}
