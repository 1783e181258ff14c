//! This host's clock, where it is the cause of another program's error.

use jiff::Timestamp;

/// What sets the clock.
const SET_IT: &str = "set it with `timedatectl set-ntp true`, or without a time server with \
                      `date --set 'YYYY-MM-DD HH:MM:SS UTC'`";

/// What apt, OpenSSL and GnuTLS print of what begins in the future.
const FUTURE: [&str; 3] = ["is not valid yet", "is not yet valid", "is not yet activated"];

/// What apt, curl, GnuTLS and NSS print of what has ended, and apt of a key that has expired.
const PAST: [&str; 5] = [
    "is expired (invalid since",
    "ertificate has expired",
    "ertificate is expired",
    "uses expired certificate",
    "EXPKEYSIG",
];

/// What dnf prints of a signature from the future, or by a key that has expired: dnf 4, which
/// uses GPGME, and dnf 5, which uses rpm.
const BAD_SIGNATURE: [&str; 2] = ["Bad GPG signature", "Bad PGP signature"];

/// What to say about the clock, where the output of apt, yum, dnf or curl shows that it is
/// behind or may be.
pub fn advice(output: &str) -> Option<String> {
    advice_at(output, Timestamp::now())
}

fn advice_at(output: &str, now: Timestamp) -> Option<String> {
    if FUTURE.iter().any(|text| output.contains(text)) {
        // `(invalid for another 3d 2h 4min 53s)`
        let behind = output
            .split_once("(invalid for another ")
            .and_then(|(_, rest)| rest.split_once(')'))
            .map_or_else(String::new, |(duration, _)| format!(" by at least {duration}"));
        return Some(format!(
            "This host's clock is behind{behind}: it is {now:.0} here; {SET_IT}."
        ));
    }
    if PAST.iter().any(|text| output.contains(text)) {
        return Some(format!(
            "By this host's clock it has expired: it is {now:.0} here. If that is not the time, \
             {SET_IT}."
        ));
    }
    // It names no reason.
    BAD_SIGNATURE.iter().any(|text| output.contains(text)).then(|| {
        format!(
            "dnf rejects good signatures, too, where the clock is wrong. It is {now:.0} here; if \
             that is not the time, {SET_IT}."
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(output: &str) -> Option<String> {
        advice_at(output, "2020-01-02T03:04:05.6Z".parse().unwrap())
    }

    #[test]
    fn what_is_not_valid_yet_is_traced_to_the_clock() {
        // apt 2.6.1 under `faketime -f -400d`, and -3h.
        for behind in ["399d 23h 28min 10s", "2h 28min 11s"] {
            let apt = format!(
                "E: Release file for file:/srv/apt/dists/stable/InRelease is not valid yet (invalid \
                 for another {behind}). Updates for this repository will not be applied."
            );
            let found = said(&apt).unwrap();
            let start = format!(
                "This host's clock is behind by at least {behind}: it is 2020-01-02T03:04:05Z \
                 here; set it with `timedatectl set-ntp true`"
            );
            assert!(found.starts_with(&start), "{found}");
        }
        for text in [
            "Curl error (60): SSL peer certificate or SSH remote key was not OK for \
             https://x.example.com/repodata/repomd.xml [SSL certificate problem: certificate is not \
             yet valid]",
            "curl#60 - \"SSL certificate problem: certificate is not yet valid\"",
            "Certificate verification failed: The certificate is NOT trusted. The certificate chain \
             is not yet valid. Could not handshake: Error in the certificate verification.",
            "The certificate is NOT trusted. The certificate is not yet activated.",
        ] {
            assert!(
                said(text).unwrap().starts_with("This host's clock is behind: it is "),
                "{text}"
            );
        }
    }

    #[test]
    fn what_has_expired_may_be_the_clocks_fault() {
        for text in [
            // apt 2.6.1, curl 7.88 and 7.29, GnuTLS 3.7, apt under `faketime -f +4000d`.
            "E: Release file for http://x/InRelease is expired (invalid since 3d 2h).",
            "curl: (60) SSL certificate problem: certificate has expired",
            "curl: (60) Peer's Certificate has expired.",
            "Certificate verification failed: The certificate is NOT trusted. The certificate chain \
             uses expired certificate.  Could not handshake",
            "The following signatures were invalid: EXPKEYSIG 0123456789ABCDEF scalr-agent",
        ] {
            let found = said(text).unwrap();
            assert!(found.contains("it is 2020-01-02T03:04:05Z here. If that is not"), "{found}");
        }
    }

    #[test]
    fn a_bad_signature_of_dnf_may_be_the_clocks_fault() {
        // dnf 4.14.0 under `faketime -f -3h`, and +4000d, where the key has expired; of dnf 5 the
        // end differs.
        for end in ["Bad GPG signature", "Bad PGP signature"] {
            let text = format!(
                "Error: Failed to download metadata for repo 'scalr-agent': repomd.xml GPG \
                 signature verification error: {end}"
            );
            let found = said(&text).unwrap();
            assert!(found.contains("if that is not the time, set it with"), "{found}");
        }
    }

    #[test]
    fn other_errors_say_nothing_of_the_clock() {
        for text in [
            "GPG signature verification error: Signing key not found",
            "curl#7 - \"Failed to connect\"",
        ] {
            assert_eq!(said(text), None, "{text}");
        }
    }
}
