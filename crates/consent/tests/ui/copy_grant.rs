fn twice(
    grant: candor_consent::Grant<candor_consent::Backup>,
) -> [candor_consent::Grant<candor_consent::Backup>; 2] {
    [grant.clone(), grant]
}

fn main() {}
