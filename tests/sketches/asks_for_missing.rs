//! Chapter 17: a receiver that asks for what is missing, instead of acknowledging what has come. It is tempting, for
//! where nothing is lost it sends nothing.

// ANCHOR: missing
/// The numbers to ask for, now that these have come.
fn missing(come: &[u32]) -> Vec<u32> {
    let newest = come.iter().copied().max().unwrap_or(0);
    (1..newest).filter(|number| !come.contains(number)).collect()
}
// ANCHOR_END: missing

#[test]
fn whoever_asks_for_gaps_never_misses_the_last_ones() {
    assert_eq!(missing(&[1, 2, 4, 6]), [3, 5]);
    // Seven were sent: the sender hears of no gap, and the receiver waits for ever.
    assert!(missing(&[1, 2, 3, 4, 5, 6]).is_empty());
    assert!(missing(&[]).is_empty());
}
