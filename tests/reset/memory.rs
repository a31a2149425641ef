//! Peak memory does not follow the number of documents. `DOCUMENTS=200000` tries as many as the claim is about.

use runbook_sandbox::Options;

use crate::bench::{Bench, PHRASE};

fn most() -> usize {
    std::env::var("DOCUMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

/// The peak resident set, in KiB, of a plan and of each half of a run over so many documents.
async fn peaks(attachments: usize) -> Vec<u64> {
    let options = Options { attachments, orphans: 5, restore: 2, ..Options::default() };
    let bench = Bench::start(&options).await;
    let mut peaks = Vec::new();
    for (code, arguments) in [
        (0, vec!["plan", "reset-chatkit"]),
        (5, vec!["exec", "reset-chatkit"]),
        (0, vec!["answer", "reset-chatkit", PHRASE]),
    ] {
        let told = bench.state.path().join("told.txt");
        let said = std::fs::File::create(&told).unwrap();
        let mut child =
            bench.command(&arguments).stdout(std::process::Stdio::null()).stderr(said).spawn().unwrap();
        let pid = child.id().unwrap();
        let mut peak = 0;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            peak = peak.max(peak_of(pid).unwrap_or(0));
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        let said = std::fs::read_to_string(&told).unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?} over {attachments} said:\n{said}");
        peaks.push(peak);
    }
    peaks
}

/// `VmHWM`, the high-water mark that the kernel keeps.
fn peak_of(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test]
async fn peak_memory_is_flat_in_the_number_of_documents() {
    let (few, many) = (peaks(1_000).await, peaks(most()).await);
    println!("peak resident set in KiB: 1000 documents {few:?}, {} documents {many:?}", most());
    for (few, many) in few.iter().zip(&many) {
        assert!(*many * 10 <= *few * 13, "{many} KiB against {few} KiB");
    }
}
