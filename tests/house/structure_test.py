"""Who may include what: the levels of CONTRIBUTING.md ("The house") and the nevers, over every tracked source file."""
import os
import re
import subprocess
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCES = (".h", ".inc", ".cpp", ".cu", ".cuh")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)

# The longest prefix counts. A file includes only from its own level or below.
LEVELS = {
    "kernels/": 2, "kernels/tensor.h": 1, "kernels/kv_view.h": 1, "kernels/check.h": 1,
    "kernels/status_macros.h": 1, "kernels/registry.cpp": 3, "kernels/reference/": 3, "kernels/cpu/": 3,
    "kernels/cuda/": 3, "server/config/": 4, "server/cache/": 4, "server/telemetry/": 4, "server/status/": 4, "server/policy/": 5,
    "server/model/": 5, "server/text/": 6, "server/engine/": 6, "server/api/": 7, "server/rpc/": 8, "server/http/": 8,
    "server/": 9, "client/": 1, "client/bench/": 2, "client/inspect/": 2, "client/cli/": 3,
}

# (what, included, where it may be)
NEVERS = [
    ("gRPC", r"grpc(pp|\+\+)?/|.*\.grpc\.pb\.h$", ("server/rpc/", "client/")),
    ("generated proto", r".*\.pb\.h$", ("server/api/", "server/rpc/", "server/http/", "client/")),
    ("CUDA", r"cu(da|blas)[\w./]*\.h$|cooperative_groups|cub/|mma\.h$", ("kernels/cuda/",)),
    ("yaml-cpp", r"yaml-cpp/", ("server/config/",)),
    ("the web server", r"boost/", ("server/http/",)),
    ("option parsing", r"CLI/", ("client/cli/", "server/*")),
    ("policies", r"server/policy/", ("server/policy/", "server/engine/", "server/api/", "server/rpc/", "server/http/",
                                     "server/config/", "server/*")),
    ("the engine", r"server/engine/", ("server/engine/", "server/api/", "server/rpc/", "server/http/", "server/*")),
    ("the server", r"server/", ("server/",)),
    ("the client", r"client/", ("client/",)),
    ("kernels", r"kernels/", ("kernels/", "server/")),
]


def tracked_sources():
    names = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--", "server", "kernels", "client"], check=True,
                           capture_output=True, text=True).stdout.split("\0")
    return [name for name in names if name.endswith(SOURCES) and os.path.exists(os.path.join(ROOT, name))]


def level(path):
    return LEVELS[max((prefix for prefix in LEVELS if path.startswith(prefix)), key=len)]


def allowed(path, places):
    """`place/*` is a file of that folder itself, `place/` anything below it."""
    return any(os.path.dirname(path) + "/*" == place if place.endswith("*") else path.startswith(place)
               for place in places)


def faults(path, text):
    for included in INCLUDE.findall(text):
        for what, pattern, places in NEVERS:
            if re.match(pattern, included) and not allowed(path, places):
                yield f"{path}: {what} may be included by {', '.join(places)} only: {included}"
        if included.startswith(("kernels/", "server/", "client/")) and level(included) > level(path):
            yield f"{path}: level {level(path)} includes {included} of level {level(included)}"


class StructureTest(unittest.TestCase):
    def test_no_file_includes_what_it_must_not(self):
        found = []
        for name in tracked_sources():
            with open(os.path.join(ROOT, name), encoding="utf-8") as file:
                found += faults(name, file.read())
        self.assertEqual(found, [], "\n" + "\n".join(found))

    def test_the_check_sees_what_it_is_for(self):
        for path, included in [("server/cache/x.h", "server/policy/policy.h"), ("server/model/x.h", "server/policy/y.h"),
                               ("server/policy/x.h", "server/engine/engine.h"), ("server/http/x.h", "grpcpp/server.h"),
                               ("server/engine/x.h", "pyramidkv/v1/generation.pb.h"), ("kernels/x.h", "server/app.h"),
                               ("kernels/cpu/x.cpp", "cuda_runtime.h"), ("client/x.h", "kernels/tensor.h"),
                               ("server/rpc/x.cpp", "yaml-cpp/yaml.h"), ("kernels/backend.h", "kernels/cpu/isa.h")]:
            self.assertTrue(list(faults(path, f'#include "{included}"\n')), f"{path} <- {included}")


if __name__ == "__main__":
    unittest.main()
