//! What to do where even root may not change a file.

use std::io;

use nix::unistd::Uid;

/// The error, and where the mount or an attribute keeps a file as it is, what to do about that
/// on a line of its own.
pub fn explain(error: io::Error) -> io::Error {
    explain_to(Uid::effective(), error)
}

fn explain_to(user: Uid, error: io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "Mount the file system for writing, and run this again."
        }
        io::ErrorKind::PermissionDenied if user.is_root() => {
            "The file or its folder may be immutable: `lsattr -d` shows it with an i or an a, \
             `chattr -i -a` takes both away."
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}\n{advice}"))
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn what_root_may_not_change_comes_with_what_to_do() {
        let root = Uid::from_raw(0);
        let read_only = explain_to(Uid::from_raw(1000), Errno::EROFS.into());
        assert_eq!(read_only.kind(), io::ErrorKind::ReadOnlyFilesystem);
        assert!(read_only.to_string().contains("\nMount the file system"), "{read_only}");
        assert!(explain_to(root, Errno::EPERM.into()).to_string().contains("\nThe file or"));
        let of_others = explain_to(Uid::from_raw(1000), Errno::EPERM.into());
        assert_eq!(of_others.raw_os_error(), Some(Errno::EPERM as i32));
        let missing = explain_to(root, Errno::ENOENT.into());
        assert_eq!(missing.raw_os_error(), Some(Errno::ENOENT as i32));
    }
}
