"""The pack as a real ComfyUI sees it."""


def test_pack_loads_in_process(host):
    assert "Video2LoRALoadHypernet" in host.node_classes
    assert host.core.Video2LoRA.__module__.startswith(host.pack.__name__)


def test_server_knows_our_nodes(server):
    known = server.object_info()
    assert {"Video2LoRALoadHypernet", "Video2LoRAReferenceToLoRA"} <= known.keys()
