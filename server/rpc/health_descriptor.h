// The definition of grpc.health.v1 for clients that ask by reflection. Distributions ship it in no package that all of
// them have, and gRPC's own health service brings none.
#pragma once

namespace pkv {

// Adds it to what reflection answers from. Any number of times, from any thread.
void register_health_descriptor();

}  // namespace pkv
