//! The records of a PAX extended header: lines `LENGTH KEY=VALUE`, where a value may
//! have anything in it, also a newline.

/// A header's records.
#[derive(Default)]
pub(crate) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// None if they are malformed.
    pub(crate) fn parse(mut text: &[u8]) -> Option<Self> {
        let mut records = Vec::new();
        while !text.is_empty() {
            let space = text.iter().position(|byte| *byte == b' ')?;
            let length = number(&text[..space])?;
            let record = text.get(space + 1..usize::try_from(length).ok()?)?;
            let (end, record) = record.split_last()?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            if *end != b'\n' {
                return None;
            }
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            text = &text[space + 1 + record.len() + 1..];
        }
        Some(Self(records))
    }

    /// The value of `key`, unless it is empty: that means that there is none. The last
    /// one counts.
    pub(crate) fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.0.iter().rev().find(|(name, _)| name == key.as_bytes());
        found.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }

    /// A value that is a number; the inner none is one that is something else.
    pub(crate) fn number(&self, key: &str) -> Option<Option<u64>> {
        self.get(key).map(number)
    }

    /// All records in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (key.as_slice(), value.as_slice()))
    }
}

/// A decimal number without a sign.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    let is_plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    if is_plain { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_have_newlines_and_what_looks_like_a_record() {
        let text = b"31 SCHILY.xattr.a=\n\n12 path=b\n\n10 path=a\n";
        let records = Records::parse(text).unwrap();
        assert_eq!(records.get("path"), Some(&b"a"[..]));
        assert_eq!(records.iter().count(), 2);
    }

    #[test]
    fn malformed_records_are_none() {
        let wrong: [&[u8]; 8] = [
            b"10 path=a",
            b"8 path=a\n",
            b"11 path=a\n",
            b"8 path\n",
            b" path=a\n",
            b"+10 path=a\n",
            b"99999999999999999999 path=a\n",
            b"2 \n",
        ];
        for text in wrong {
            assert!(Records::parse(text).is_none(), "{}", String::from_utf8_lossy(text));
        }
    }
}
