"""One file per rule: `Spec(GateSpec)` holds its options, `judge(spec, measurement)` comes to its findings."""
