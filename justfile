# The commands of this repository. `just` lists them; each line can also be typed by hand.

_default:
    @just --list --unsorted

# Everything `cargo test` runs: scenarios, unit tests, the pages' code
test *args:
    cargo test {{ args }}

# The gate, as CI runs it
ci:
    .ci/run

# Format, and see what clippy says
tidy:
    cargo fmt
    cargo clippy --all-targets --all-features -- -D warnings

# Injection: times and allocations; then instructions, counted by valgrind
bench:
    cargo bench --bench injection
    .ci/instructions

# The documentation as docs.rs builds it, opened
docs:
    .ci/docs
    cargo +nightly doc --target-dir target/nightly --no-deps --all-features --open

# Every interleaving of the slot's state machine
loom:
    .ci/loom

# The pure modules under miri
miri:
    .ci/miri

# One fuzz target for this many seconds: destinations, metadata_response, scopes, id_token
fuzz target="destinations" seconds="60":
    cargo +nightly fuzz run {{ target }} -- -max_total_time={{ seconds }}

# Licences, bans, sources, advisories
deny:
    .ci/deny

# The layer with other crates' clients: kube, tonic, axum, reqwest-middleware, object_store
integrations:
    .ci/integrations

# Windows and macOS, compiled
platforms:
    .ci/platforms

# The benches against other crates, checked
peers:
    .ci/peers

# Updates the generated lists: scenarios, public API
update-docs:
    UPDATE_DOCS=1 cargo test --quiet --test scenarios
    UPDATE_DOCS=1 .ci/api

# A test file this many times in a row, before it lands
loop file count="200":
    cargo nextest run --test {{ file }} --stress-count {{ count }}
