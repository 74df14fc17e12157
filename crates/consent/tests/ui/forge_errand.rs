fn main() {
    let _ = candor_consent::Errand { purpose: candor_wire::errand::Purpose::Restore };
}
