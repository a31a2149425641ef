//! The forms that a key of Ed25519 is written in.

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::Encoding;
use crate::digest::sha256;

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// What stands before the 32 bytes of a public key of Ed25519 in DER: RFC 8410, section 4.
const PUBLIC: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// What may be said of a private key.
pub(super) struct Public {
    /// The public key, DER.
    der: Vec<u8>,
}

/// A new private key.
pub(super) fn make(encoding: Encoding) -> Result<String, Unspecified> {
    // Version 1 of PKCS#8, which holds the private key alone: not every program reads the other one.
    let key = Ed25519KeyPair::generate()?.to_pkcs8v1()?;
    // 48 bytes are one line of 64 characters.
    let pem = format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(key.as_ref()));
    Ok(match encoding {
        Encoding::Pem => pem,
        Encoding::Base64Pem => format!("{}\n", STANDARD.encode(pem)),
    })
}

/// The PEM that a text in this encoding stands for.
pub(super) fn pem(text: &str, encoding: Encoding) -> Option<String> {
    match encoding {
        Encoding::Pem => Some(text.to_owned()),
        Encoding::Base64Pem => String::from_utf8(STANDARD.decode(text.trim_end()).ok()?).ok(),
    }
}

/// The public key that belongs to a private one in PEM; nothing when the text is none.
pub(super) fn public(pem: &str) -> Option<Public> {
    let body = pem.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    from_der(&STANDARD.decode(body.split_whitespace().collect::<String>()).ok()?)
}

fn from_der(der: &[u8]) -> Option<Public> {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok()?;
    Some(Public { der: [&PUBLIC[..], pair.public_key().as_ref()].concat() })
}

/// Why a text is no key in this encoding.
pub(super) fn why_not(text: &str, encoding: Encoding) -> &'static str {
    if encoding == Encoding::Base64Pem {
        if text.contains(BEGIN) {
            return "it is PEM as it stands, and PEM in Base64 is asked for: `base64 -w0` makes that of it";
        }
        if STANDARD.decode(text.trim()).is_ok_and(|der| from_der(&der).is_some()) {
            return "it is Base64 of DER, and Base64 of PEM is asked for";
        }
    } else if pem(text, Encoding::Base64Pem).is_some_and(|pem| pem.contains(BEGIN)) {
        return "it is PEM in Base64, and PEM as it stands is asked for";
    }
    match pem(text, encoding) {
        Some(pem) if pem.contains("-----BEGIN") => "it is no private key of Ed25519, PKCS#8",
        _ => "it is no PEM",
    }
}

impl Public {
    /// The SHA-256 of it, DER.
    pub(super) fn fingerprint(&self) -> String {
        sha256(&self.der)
    }

    /// Its 32 bytes, in Base64 for URLs.
    pub(super) fn x(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.der[PUBLIC.len()..])
    }

    /// PEM, as `openssl pkey -pubout` writes it.
    pub(super) fn pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&self.der))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_is_that_of_a_key_known_elsewhere() {
        // RFC 8410, section 10.
        let key = "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC";
        let text = format!("{BEGIN}\n{key}\n{END}\n");
        let der = "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=";
        let public = public(&text).unwrap();
        assert_eq!(public.fingerprint(), sha256(&STANDARD.decode(der).unwrap()));
        assert_eq!(public.x(), "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE");
        assert_eq!(public.pem(), format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n"));
        assert_eq!(pem(&STANDARD.encode(&text), Encoding::Base64Pem), Some(text.clone()));
        assert!(super::public(key).is_none() && pem(&text, Encoding::Base64Pem).is_none());
        let other = format!("{BEGIN}\nAAAA\n{END}\n");
        for (text, encoding, why) in [
            (text.as_str(), Encoding::Base64Pem, "PEM as it stands"),
            (key, Encoding::Base64Pem, "Base64 of DER"),
            (&STANDARD.encode(&text), Encoding::Pem, "PEM in Base64"),
            (&STANDARD.encode(&other), Encoding::Base64Pem, "no private key of Ed25519"),
            (&other, Encoding::Pem, "no private key of Ed25519"),
            ("", Encoding::Base64Pem, "no PEM"),
        ] {
            assert!(why_not(text, encoding).contains(why), "{why}: {}", why_not(text, encoding));
        }
    }
}
