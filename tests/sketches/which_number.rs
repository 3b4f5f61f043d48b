//! Chapter 2, exercise 2: an address from its number.

use std::net::Ipv4Addr;

#[test]
fn the_number_is_an_address_of_a_home() {
    // ANCHOR: which_number
    let address = Ipv4Addr::from(3232235777);
    println!("{address}, private: {}", address.is_private());
    // ANCHOR_END: which_number
    assert_eq!(address.to_string(), "192.168.1.1");
    assert!(address.is_private());
}
