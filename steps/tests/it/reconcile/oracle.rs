//! What is planted in images, by their numbers alone, and what every one of them has to be found to be.

/// What is planted in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    Whole,
    OriginalLost,
    StagedLost,
    Renamed,
    Refused,
    Broken,
    Slow,
    Elsewhere,
    Nothing,
    InError,
    Deleted,
}

/// Independent of how it is found out: by the number of the image alone.
pub fn planted(number: u64) -> Planted {
    match number {
        n if n % 997 == 1 => Planted::Refused,
        n if n % 997 == 2 => Planted::Broken,
        n if n % 997 == 3 => Planted::Slow,
        n if n % 97 == 5 => Planted::OriginalLost,
        n if n % 89 == 7 => Planted::StagedLost,
        n if n % 101 == 9 => Planted::Renamed,
        n if n % 83 == 11 => Planted::Elsewhere,
        n if n % 79 == 13 => Planted::Nothing,
        n if n % 73 == 15 => Planted::InError,
        n if n % 71 == 17 => Planted::Deleted,
        _ => Planted::Whole,
    }
}

/// The verdict on an image; none when it is left out. Lost ones that cannot be looked up are unknown; what a listing has needs no look.
pub fn oracle(number: u64, listing: bool) -> Option<&'static str> {
    Some(match planted(number) {
        Planted::InError | Planted::Deleted => return None,
        Planted::OriginalLost | Planted::StagedLost | Planted::Renamed => "missing",
        Planted::Elsewhere => "unresolvable",
        // The object is there, and so the listing tells.
        Planted::Refused | Planted::Broken if !listing => "unknown",
        _ => "ok",
    })
}

pub fn all(count: u64, wanted: impl Fn(Planted) -> bool) -> impl Iterator<Item = u64> {
    (0..count).filter(move |number| wanted(planted(*number)))
}

/// The numbers of the images in which this is planted, as SQL lists them; -1 when there are none.
pub fn listed(count: u64, wanted: Planted) -> String {
    let numbers: Vec<String> = all(count, |one| one == wanted).map(|number| number.to_string()).collect();
    if numbers.is_empty() { "-1".to_owned() } else { numbers.join(",") }
}
