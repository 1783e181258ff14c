//! JSON that may be large, of which only a few parts are kept in memory.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read};
use std::rc::Rc;

use struson::reader::{JsonReader as _, JsonStreamReader, ReaderError, ReaderSettings};

/// A JSON text of which only so many bytes are kept in memory.
pub(crate) struct Bounded<R> {
    pub body: R,
    /// How many bytes are left; none while a part is read that is not kept.
    pub left: Rc<Cell<Option<u64>>>,
    /// What is wrong with a text that has more.
    pub beyond: &'static str,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.body.read(buffer)?;
        if let Some(left) = self.left.get() {
            let left = left
                .checked_sub(length as u64)
                .ok_or_else(|| io::Error::new(ErrorKind::FileTooLarge, self.beyond))?;
            self.left.set(Some(left));
        }
        Ok(length)
    }
}

/// A state, read member by member.
pub(crate) struct StateReader<R: Read> {
    pub json: JsonStreamReader<Bounded<R>>,
    left: Rc<Cell<Option<u64>>>,
}

/// The longest name of a member, and what a member may have that is short, in bytes. The reader
/// is ahead by up to 1 KiB.
const SHORT: u64 = 64 * 1024;

/// A state is kept whatever is in it, but what is open while it is read is kept in memory.
const DEEPEST: u32 = 100_000;

impl<R: Read> StateReader<R> {
    /// `beyond` says what is wrong with a part that is too long.
    pub(crate) fn new(state: R, beyond: &'static str) -> Self {
        let left = Rc::new(Cell::new(None));
        let body = Bounded { body: state, left: Rc::clone(&left), beyond };
        let settings = ReaderSettings {
            track_path: false,
            max_nesting_depth: Some(DEEPEST),
            // Terraform's numbers may have any number of digits.
            restrict_number_values: false,
            ..Default::default()
        };
        Self { json: JsonStreamReader::new_custom(body, settings), left }
    }

    /// The name of the next member of the object that is open; none at its end. The member's
    /// value has to be short, unless it is allowed to have more.
    ///
    /// # Errors
    /// The name is too long, or this is no JSON.
    pub(crate) fn next_name(&mut self) -> Result<Option<String>, ReaderError> {
        self.allow(SHORT);
        Ok(match self.json.has_next()? {
            true => Some(self.json.next_name_owned()?),
            false => None,
        })
    }

    /// Lets what comes next have so many bytes.
    pub(crate) fn allow(&self, bytes: u64) {
        self.left.set(Some(bytes));
    }

    /// Passes over the next value, however long it is.
    ///
    /// # Errors
    /// This is no JSON.
    pub(crate) fn skip(&mut self) -> Result<(), ReaderError> {
        self.left.set(None);
        self.json.skip_value()
    }
}
