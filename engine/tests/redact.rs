//! No form of a secret survives, and nothing else is changed.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use runbook_engine::redact::{MASK, Redactor};
use serde_json::json;

/// How other programs would write the secret; independent of how the redactor makes its forms.
fn written(secret: &str, before: &str, after: &str) -> Vec<String> {
    let inside = format!("{before}{secret}{after}");
    let mut forms = vec![
        secret.to_owned(),
        STANDARD.encode(secret),
        STANDARD_NO_PAD.encode(secret),
        URL_SAFE.encode(secret),
        URL_SAFE_NO_PAD.encode(secret),
        url::form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
        secret.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        secret.bytes().map(|byte| format!("{byte:02x}")).collect(),
        secret.bytes().map(|byte| format!("{byte:02X}")).collect(),
        json!(secret)
            .to_string()
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
            .unwrap()
            .to_owned(),
        json!(json!({ "k": secret }).to_string()).to_string(),
        json!({ "key": [inside] }).to_string(),
    ];
    forms.push(forms[5].replace('+', "%20"));
    forms.push(forms[9].replace('/', "\\/"));
    forms
}

/// Whether the secret can be read out of the text: decoded in every way, at every place.
fn readable(text: &str, secret: &str) -> bool {
    let has = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    let percent = |text: &str| -> Vec<u8> {
        url::form_urlencoded::parse(format!("k={}", text.replace(['&', ';'], "%26")).as_bytes())
            .flat_map(|(_, value)| value.into_owned().into_bytes())
            .collect()
    };
    let mut decoded = vec![text.as_bytes().to_vec(), percent(text)];
    for run in text.split(|c: char| !c.is_ascii_alphanumeric() && !"+/-_".contains(c)) {
        let standard = run.replace('-', "+").replace('_', "/");
        for skip in 0..4.min(standard.len()) {
            let cut = &standard[skip..];
            let whole = &cut[..cut.len() - usize::from(cut.len() % 4 == 1)];
            let lenient = base64::engine::GeneralPurposeConfig::new()
                .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
                .with_decode_allow_trailing_bits(true);
            let engine = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, lenient);
            decoded.extend(engine.decode(whole).ok());
        }
    }
    decoded.iter().any(|bytes| has(bytes))
}

/// Long enough not to come up by chance.
fn secret() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 /+=&%\"\\\\<'é☃𝄞\u{1}\t.~*_-]{8,40}".prop_filter("not a mask, not blank", |secret| {
        secret.trim() == secret && !MASK.contains(secret.as_str())
    })
}

fn surroundings() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9 :/+=\"\\\\{}é☃\n]{0,30}"
}

fn in_pieces(redactor: &Redactor, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut stream = redactor.stream();
    let (mut clean, mut rest) = (Vec::new(), text);
    for cut in cuts {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        clean.extend(stream.push(piece));
        rest = after;
    }
    clean.extend(stream.push(rest));
    clean.extend(stream.finish());
    clean
}

proptest! {
    #[test]
    fn no_form_survives(
        secret in secret(), before in surroundings(), after in surroundings(), cuts in prop::collection::vec(0..9_usize, 0..40),
    ) {
        let redactor = Redactor::new([secret.clone()]);
        for form in written(&secret, &before, &after) {
            let text = format!("{before}{form}{after}");
            let clean = redactor.text(&text);
            prop_assert!(!clean.contains(&form), "{form:?} is in {clean:?}");
            prop_assert!(!readable(&clean, &secret), "{secret:?} can be read from {clean:?}");
            prop_assert!(clean.contains(MASK));
            prop_assert!(redactor.finds(text.as_bytes()));
            prop_assert_eq!(in_pieces(&redactor, text.as_bytes(), &cuts), clean.into_bytes());
        }
    }

    #[test]
    fn base64_of_a_longer_text_does_not_give_it_away(
        secret in secret(), before in "[a-z:]{0,9}", after in "[a-z:]{0,9}", url_safe: bool,
    ) {
        let inside = format!("{before}{secret}{after}");
        let form = if url_safe { URL_SAFE_NO_PAD.encode(inside) } else { STANDARD.encode(inside) };
        let text = format!("Basic {form}");
        prop_assert!(readable(&text, &secret), "otherwise this test could not fail");
        let clean = Redactor::new([secret.clone()]).text(&text);
        prop_assert!(clean.contains(MASK));
        prop_assert!(!readable(&clean, &secret), "{secret:?} can be read from {clean:?}");
    }

    #[test]
    fn other_text_is_unchanged(text in "[a-zA-Z0-9 :/+=\"\\\\{}é☃\n]{0,300}", cuts in prop::collection::vec(0..9_usize, 0..40)) {
        let redactor = Redactor::new(["s3cr3t-Zx-81!".to_owned(), "#".to_owned(), String::new()]);
        prop_assert_eq!(&redactor.text(&text), &text);
        prop_assert!(!redactor.finds(text.as_bytes()));
        prop_assert_eq!(in_pieces(&redactor, text.as_bytes(), &cuts), text.into_bytes());
    }

    #[test]
    fn pieces_come_to_the_same_as_the_whole(
        text in "[abA]{0,120}", secrets in prop::collection::vec("[ab]{1,7}", 1..4), cuts in prop::collection::vec(0..9_usize, 0..40),
    ) {
        let redactor = Redactor::new(secrets);
        prop_assert_eq!(in_pieces(&redactor, text.as_bytes(), &cuts), redactor.text(&text).into_bytes());
    }
}

#[test]
fn masks_each_line_of_a_secret_with_several() {
    let key = "-----BEGIN KEY-----\r\nMIIEvQIBADANBgkq\r\nhkiG9w0BAQEFAASC\nshort\n-----END KEY-----\n";
    let redactor = Redactor::new([key.to_owned()]);
    assert_eq!(redactor.text("x hkiG9w0BAQEFAASC y"), format!("x {MASK} y"));
    assert_eq!(redactor.text("a short walk"), "a short walk");
    assert_eq!(redactor.text(key.trim()), MASK);
    let escaped = json!({ "key": key }).to_string();
    assert_eq!(redactor.text(&escaped), json!({ "key": MASK }).to_string());
    assert_eq!(redactor.text(&key.replace("\r\n", "\n")).matches("MII").count(), 0);
}

#[test]
fn masks_a_large_secret_in_small_pieces() {
    let lines: Vec<String> = (0..60).map(|n| STANDARD.encode([n; 48])).collect();
    let key = lines.join("\n");
    let redactor = Redactor::new([key.clone()]);
    let text = format!("before {key} between {} after {}", json!(key), "other text ".repeat(2000));
    let clean = redactor.text(&text);
    assert!(
        clean.starts_with(&format!("before {MASK} between"))
            && !lines.iter().any(|line| clean.contains(line))
    );
    for size in [3, 17, 5000] {
        let cuts = vec![size; text.len() / size];
        assert_eq!(in_pieces(&redactor, text.as_bytes(), &cuts), clean.as_bytes());
    }
}

#[test]
fn masks_what_overlaps_as_one() {
    let redactor = Redactor::new(["abcdXYZ".to_owned(), "XYZefgh".to_owned()]);
    assert_eq!(redactor.text("-abcdXYZefgh-"), format!("-{MASK}-"));
    assert_eq!(redactor.text("abcdXYZabcdXYZ"), format!("{MASK}{MASK}"));
}

#[test]
fn masks_short_secrets_only_as_a_whole() {
    let redactor = Redactor::new(["on".to_owned(), "é☃é".to_owned()]);
    assert_eq!(redactor.text("on"), MASK);
    assert_eq!(redactor.text(" on\n"), MASK);
    assert_eq!(redactor.text("é☃é"), MASK);
    assert_eq!(redactor.text("once upon"), "once upon");
    assert_eq!(redactor.value(&json!({ "state": "on", "n": 5 })), json!({ "state": MASK, "n": 5 }));
    assert_eq!(in_pieces(&redactor, b"on", &[1]), MASK.as_bytes());
    assert_eq!(in_pieces(&redactor, b"once upon", &[1, 2]), b"once upon");
}

#[test]
fn masks_keys_strings_and_numbers_of_values() {
    let redactor = Redactor::new(["hunter2!".to_owned(), "90210".to_owned()]);
    let value = json!({ "hunter2!": 1, "a-hunter2!": [{ "x": "my hunter2!" }], "pin": 90210, "count": 902_101, "b": true });
    let mask = json!({ MASK: 1, format!("a-{MASK}"): [{ "x": format!("my {MASK}") }], "pin": MASK, "count": 902_101, "b": true });
    assert_eq!(redactor.value(&value), mask);
    // Fields whose names only differ in their secrets are all kept.
    let redactor = Redactor::new(["first-secret".to_owned(), "second-secret".to_owned()]);
    let value = json!({ "first-secret": 1, "second-secret": 2 });
    assert_eq!(redactor.value(&value), json!({ MASK: 1, format!("{MASK}-2"): 2 }));
}

#[test]
fn clones_learn_together() {
    let redactor = Redactor::default();
    let clone = redactor.clone();
    let mut stream = clone.stream();
    assert_eq!(clone.text("session-4711"), "session-4711");
    redactor.learn("session-4711");
    redactor.learn("");
    assert_eq!(clone.text("a session-4711"), format!("a {MASK}"));
    let mut clean = stream.push(b"a session-47");
    clean.extend(stream.push(b"11"));
    clean.extend(stream.finish());
    assert_eq!(clean, format!("a {MASK}").into_bytes());
    assert!(stream.found());
    assert!(!format!("{redactor:?}").contains("4711"));
}

#[test]
fn masks_what_was_encoded_twice_for_a_url() {
    let secret = "p@ss/word 100%&more";
    let redactor = Redactor::new([secret.to_owned()]);
    let once: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    for once in [once.replace('+', "%20"), once] {
        let twice: String = url::form_urlencoded::byte_serialize(once.as_bytes()).collect();
        assert_eq!(
            redactor.text(&format!("?next=%2Fa%3Fk%3D{twice}&x=1")),
            format!("?next=%2Fa%3Fk%3D{MASK}&x=1")
        );
    }
}

fn quoted(text: &str) -> String {
    json!(text).to_string().trim_matches('"').to_owned()
}

#[test]
fn masks_base64_that_is_wrapped_into_lines() {
    let key = (0..12).map(|n| STANDARD.encode([n * 7 + 1; 48])).collect::<Vec<_>>().join("\n");
    let token =
        "ghp_0123456789abcdefghijABCDEFGHIJ0123456789-and-more-of-it-up-to-90-characters-and-then-some";
    for secret in [key.as_str(), token] {
        let redactor = Redactor::new([secret.to_owned()]);
        for (before, columns, end) in
            [("", 76, "\n"), ("user:", 64, "\r\n"), ("Bearer ", 76, "\n"), ("x", 60, "\n")]
        {
            let encoded = STANDARD.encode(format!("{before}{secret} and what comes after it"));
            let lines: Vec<&[u8]> = encoded.as_bytes().chunks(columns).collect();
            let wrapped =
                format!("said:\n{}{end}done\n", String::from_utf8(lines.join(end.as_bytes())).unwrap());
            for escaped in [quoted(&wrapped), quoted(&quoted(&wrapped))] {
                let clean = redactor.text(&escaped);
                assert!(
                    !lines[1..lines.len() - 1]
                        .iter()
                        .any(|line| clean.contains(std::str::from_utf8(line).unwrap())),
                    "{clean}"
                );
            }
            let clean = redactor.text(&wrapped);
            assert!(!readable(&clean.replace(['\r', '\n'], ""), secret), "{before} {columns}: {clean}");
            assert!(
                !lines[1..lines.len() - 1]
                    .iter()
                    .any(|line| clean.contains(std::str::from_utf8(line).unwrap())),
                "{clean}"
            );
            assert!(clean.starts_with("said:\n") && clean.ends_with(&format!("{end}done\n")), "{clean}");
            for size in [1, 7, 100] {
                let cuts = vec![size; wrapped.len() / size];
                assert_eq!(in_pieces(&redactor, wrapped.as_bytes(), &cuts), clean.as_bytes());
            }
        }
    }
}

#[test]
fn no_quoting_of_a_shell_a_language_or_a_markup_shows_a_secret() {
    let cases = [
        ("it's secret", r"it'\''s secret"),
        ("it's secret", r#"it'"'"'s secret"#),
        ("it's secret", r"it\'s\ secret"),
        ("it's secret", r"it\'s secret"),
        ("it's secret", "it&#39;s secret"),
        ("it's secret", "it&apos;s secret"),
        ("p$ss`w\"rd", r#"p\$ss\`w\"rd"#),
        ("p$ss`w\"rd", r#"p\$ss\`w\"rd"#),
        ("a&b<c>\"d\"", "a&amp;b&lt;c&gt;&quot;d&quot;"),
        ("a&b<c>\"d\"", "a&amp;b&lt;c>\"d\""),
        ("a&b<c>\"d\"", r#"a\&b\<c\>\"d\""#),
        ("#a,b~c!d", r"\#a\,b~c\!d"),
        ("#a,b~c!d", r"\#a,b~c\!d"),
        ("back\\slash'\"", r#"back\\slash\'""#),
        ("bell\x07tab\t'", r"bell\007tab\t\'"),
        ("bell\x07tab\t'", r"bell\x07tab\t\'"),
    ];
    for (secret, written) in cases {
        let clean = Redactor::new([secret.to_owned()]).text(&format!("before {written} after"));
        assert_eq!(clean, format!("before {MASK} after"), "{secret}: {written}");
    }
}
