struct Mine;

impl candor_consent::Authority for Mine {
    fn cell(&self) -> candor_wire::CellId {
        candor_wire::CellId::from_bytes([0; 16])
    }
    fn account(&self) -> Option<candor_wire::AccountId> {
        None
    }
    fn device(&self) -> Option<candor_wire::DeviceId> {
        None
    }
    fn opens(&self, _: &candor_wire::api::Endpoint) -> bool {
        true
    }
    fn ends_at(&self) -> candor_wire::Millis {
        candor_wire::Millis(i64::MAX)
    }
    fn header(&self) -> String {
        String::new()
    }
    fn name(&self) -> &'static str {
        "mine"
    }
    fn reference(&self) -> Vec<u8> {
        Vec::new()
    }
    fn is_grant(&self) -> bool {
        true
    }
}

fn main() {}
