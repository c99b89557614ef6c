from __future__ import annotations

from tests.exporters.variants import trained
from vit_deploy.verification.locate.flow import Flow, Node
from vit_deploy.verification.locate.structure import find_activations


def node(operator, *inputs, to):
    return Node(operator, f"of {to}", inputs, (to,))


def flow(*nodes, output, **stored):
    return Flow(tuple(nodes), "images", output, stored)


def test_a_residual_branch_is_one_section_and_a_chain_one_for_each_node():
    graph = flow(
        node("Conv", "images", "kernel", to="x"),
        node("Norm", "x", to="n"),
        node("Gemm", "n", "weight", to="y"),
        node("Add", "x", "y", to="z"),
        node("Relu", "z", to="out"),
        output="out",
        kernel=8,
        weight=4,
    )
    assert [(section.start, section.end, len(section.nodes)) for section in graph.sections] == [
        ("images", "x", 1),
        ("x", "z", 3),
        ("z", "out", 1),
    ]


def test_what_reads_a_shape_alone_carries_no_numbers():
    graph = flow(
        node("Conv", "images", "kernel", to="x"),
        node("Shape", "x", to="sides"),
        node("Expand", "token", "sides", to="tokens"),
        node("Concat", "tokens", "x", to="joined"),
        output="joined",
        kernel=8,
        token=4,
    )
    assert [section.end for section in graph.sections] == ["x", "joined"]
    assert graph.moving_inputs(graph.producers["joined"]) == ["x"]
    assert graph.constants["tokens"] == 4


def test_results_that_nobody_reads_and_nodes_off_the_way_do_not_matter():
    graph = flow(
        Node("Split", "s", ("images",), ("a", "unused")),
        node("Relu", "a", to="dead"),
        node("Relu", "a", to="out"),
        output="out",
    )
    assert [section.end for section in graph.sections] == ["a", "out"]
    assert "dead" not in graph.producers


def test_a_graph_of_another_kind_is_told_in_words_for_every_tap():
    graph = flow(node("Conv", "images", "kernel", to="x"), node("Softmax", "x", to="out"), output="out", kernel=8)
    places = find_activations(graph, trained().config, folded_norms=False)
    assert set(places.found) == {"head"}
    assert places.missing["block_1.ffn"] == "the graph has 1 parts with a softmax, which do not make up 2 blocks"
    assert places.missing["norm"] == "the parts behind the last block are not told apart"
