//! Text for people that does not end the program when nobody can read it any more: a
//! closed terminal (EIO) or an ended ssh session (EPIPE) must not keep a change of the
//! machine from being finished or undone, as the panic of the macros of std would.
//!
//! What a command was asked to print, such as a status, is for those of std.

use std::fmt::Arguments;
use std::io::Write as _;

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

/// Writes to standard error, if that can be done.
pub fn to_stderr(text: Arguments<'_>) {
    let _ = std::io::stderr().write_fmt(text);
}

/// Writes to standard output without the colours that it can't show, if that can be done.
pub fn to_stdout(text: Arguments<'_>) {
    let _ = anstream::stdout().write_fmt(text);
}
