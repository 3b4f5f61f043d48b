//! Chapter 5, exercise 1: messages that begin with their length.

// ANCHOR: next_message
/// Takes the first message out, if all of it has come.
fn next_message(bytes: &mut Vec<u8>, limit: usize) -> Result<Option<Vec<u8>>, &'static str> {
    let Some(&[a, b, c, d]) = bytes.first_chunk() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > limit {
        return Err("too long");
    }
    if bytes.len() < 4 + length {
        return Ok(None);
    }
    let message = bytes[4..4 + length].to_vec();
    bytes.drain(..4 + length);
    Ok(Some(message))
}
// ANCHOR_END: next_message

#[test]
fn messages_come_out_whole_and_a_lying_length_is_refused() {
    let mut bytes = vec![0, 0, 0, 2, b'h'];
    assert_eq!(next_message(&mut bytes, 10), Ok(None));
    bytes.extend([b'i', 0, 0, 0, 0, 0]);
    assert_eq!(next_message(&mut bytes, 10), Ok(Some(b"hi".to_vec())));
    assert_eq!(next_message(&mut bytes, 10), Ok(Some(Vec::new())));
    assert_eq!(next_message(&mut bytes, 10), Ok(None));
    assert_eq!(next_message(&mut vec![0xff; 4], 10), Err("too long"));
}
