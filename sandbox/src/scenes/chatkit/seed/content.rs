//! Attachments as a chat would hold them: their contents, names and records.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::random::Random;
use crate::crypto;

/// A media type, the extension of its files, and how they begin.
pub(super) struct Kind {
    mime_type: &'static str,
    extension: &'static str,
    magic: &'static [u8],
}

const fn kind(mime_type: &'static str, extension: &'static str, magic: &'static [u8]) -> Kind {
    Kind { mime_type, extension, magic }
}

/// Every media type that the gateway allows by default.
pub(super) const KINDS: [Kind; 8] = [
    kind("image/png", "png", b"\x89PNG\r\n\x1a\n"),
    kind("image/jpeg", "jpg", b"\xff\xd8\xff\xe0"),
    kind("image/webp", "webp", b"RIFF\0\0\0\0WEBP"),
    kind("image/gif", "gif", b"GIF89a"),
    kind("application/pdf", "pdf", b"%PDF-1.7\n"),
    kind("text/plain", "txt", b""),
    kind("application/json", "json", b""),
    kind("application/octet-stream", "bin", b""),
];

const STEMS: [&str; 10] = [
    "screenshot",
    "holiday photo",
    "Angebot für Müller",
    "voice-note",
    "invoice 2026",
    "写真",
    "résumé (final)",
    "notes",
    "naïve plan",
    "scan",
];

/// An attachment to be made.
pub(super) struct Attachment {
    pub(super) id: String,
    pub(super) session: String,
    pub(super) thread: Option<String>,
    pub(super) stored_at: String,
    /// Index into [`KINDS`].
    pub(super) kind: usize,
    pub(super) number: usize,
    pub(super) tiny: bool,
}

impl Attachment {
    /// The description and the content record, as JSON text. They are put together by hand because there
    /// can be hundreds of thousands; nothing in them needs escaping.
    pub(super) fn documents(&self, random: &mut Random) -> (String, String) {
        let bytes = self.bytes(random);
        let Kind { mime_type, extension, .. } = &KINDS[self.kind];
        let name = random.pick(&STEMS);
        let number = self.number.to_string();
        let size = bytes.len().to_string();
        let thread = match &self.thread {
            Some(thread) => &["\"threadId\":\"", thread, "\","].concat(),
            None => "",
        };
        let metadata = [
            ["{\"attachmentId\":\"", &self.id, "\",\"sessionId\":\"", &self.session, "\","].concat().as_str(),
            thread,
            ["\"fileName\":\"", name, " ", &number, ".", extension].concat().as_str(),
            ["\",\"mimeType\":\"", mime_type, "\",\"sizeBytes\":", &size].concat().as_str(),
            [",\"checksum\":\"", &crypto::sha256_hex(&bytes)].concat().as_str(),
            ["\",\"storedAt\":\"", &self.stored_at, "\"}"].concat().as_str(),
        ]
        .concat();
        let open = &metadata[..metadata.len() - 1];
        let mut blob = String::with_capacity(open.len() + bytes.len() * 4 / 3 + 32);
        blob.push_str(open);
        blob.push_str(",\"dataBase64\":\"");
        STANDARD.encode_string(&bytes, &mut blob);
        blob.push_str("\"}");
        (metadata, blob)
    }

    fn bytes(&self, random: &mut Random) -> Vec<u8> {
        let size = self.size(random);
        let mut bytes = KINDS[self.kind].magic.to_vec();
        match KINDS[self.kind].extension {
            "txt" => {
                while bytes.len() < size {
                    bytes.extend_from_slice(random.pick(&STEMS).as_bytes());
                    bytes.push(b'\n');
                }
            }
            "json" => {
                let mut filler = Vec::new();
                random.fill(&mut filler, size / 2);
                bytes = format!("{{\"data\":\"{}\"}}", crypto::hex(&filler)).into_bytes();
            }
            _ => random.fill(&mut bytes, size),
        }
        bytes
    }

    /// From some bytes to a few hundred KiB, every order of magnitude as likely as the next.
    fn size(&self, random: &mut Random) -> usize {
        let bits = if self.tiny { 3 + random.below(3) } else { 3 + random.below(15) };
        (1 << bits) + random.below(1 << bits)
    }
}
