fn needs_backup(_: candor_consent::Grant<candor_consent::Backup>) {}

fn convert(grant: candor_consent::Grant<candor_consent::Sync>) {
    needs_backup(grant);
}

fn main() {}
