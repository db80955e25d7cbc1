// Compiled like the kernels for tiles, so that it speaks of the same ones.
#include "kernels/cpu/tiles.h"

namespace pkv {

bool tiles_usable() { return Tiles::usable(); }

}  // namespace pkv
