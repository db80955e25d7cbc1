"""The OCI runtime configuration of the image that scripts/image_check built: image_bundle.py IMAGE.json ROOTFS MODEL prints one that
runs the image's command as its user, on a read-only root, without capabilities, in a network of its own. image_bundle.py --health
IMAGE.json prints the words of its HEALTHCHECK, one a line, --user IMAGE.json its user, --labels IMAGE.json its labels, NAME=value a
line."""
import json
import sys


def image_config(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)["Docker"]["config"]


def health_command(config):
    kind, *words = config["Healthcheck"]["Test"]
    if kind != "CMD":
        raise SystemExit(f"HEALTHCHECK has the form {kind}, which needs a shell")
    return words


def bundle(config, rootfs, model):
    user, group = (int(number) for number in config["User"].split(":"))
    command = (config.get("Entrypoint") or []) + (config.get("Cmd") or [])
    mount = {"destination": "/models/model.gguf", "source": model, "type": "bind", "options": ["bind", "ro", "nosuid", "nodev"]}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user, "gid": group},
            "args": command,
            "env": config["Env"],
            "cwd": config.get("WorkingDir") or "/",
            "capabilities": {name: [] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")},
            "noNewPrivileges": True,
        },
        "root": {"path": rootfs, "readonly": True},
        "hostname": "image-check",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=64k"]},
            mount,
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")]},
    }


def main(arguments):
    if arguments[0] == "--health":
        print("\n".join(health_command(image_config(arguments[1]))))
        return
    if arguments[0] == "--user":
        print(image_config(arguments[1])["User"])
        return
    if arguments[0] == "--labels":
        print("\n".join(f"{name}={value}" for name, value in image_config(arguments[1])["Labels"].items()))
        return
    image, rootfs, model = arguments
    json.dump(bundle(image_config(image), rootfs, model), sys.stdout, indent=1)


if __name__ == "__main__":
    main(sys.argv[1:])
