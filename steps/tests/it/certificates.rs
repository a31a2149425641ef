//! Certificates for servers that encrypt.

use std::path::Path;
use std::process::Command;

/// A certificate of an authority of our own for 127.0.0.1: the files of the authority, the certificate and the key.
pub fn certificates(folder: &Path) -> [String; 3] {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority \
        && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out req.pem -subj /CN=server \
        && printf 'subjectAltName=IP:127.0.0.1\\n' > ext \
        && openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem";
    let made = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.join(name).display().to_string())
}
