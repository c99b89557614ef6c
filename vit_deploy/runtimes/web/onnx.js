// ONNX files in ONNX Runtime Web.

export async function start({script, provider, threads, tiny}) {
  const address = new URL(script, location).href;
  const ort = await import(address);
  ort.env.wasm.wasmPaths = address.slice(0, address.lastIndexOf("/") + 1);
  if (threads !== null) ort.env.wasm.numThreads = threads;
  const executionProviders = [provider];
  // WebAssembly and the device come up with the first model, which is a tiny one, so that they are no part of loading.
  await (await ort.InferenceSession.create(tiny, {executionProviders})).release();
  return {
    async open({model, data, input}) {
      const externalData = data.map((path) => ({path, data: `model/${encodeURIComponent(path)}`}));
      const session = await ort.InferenceSession.create(`model/${encodeURIComponent(model)}`, {
        executionProviders,
        ...(externalData.length && {externalData}),
      });
      let feeds = [];
      let results = [];
      const given = session.inputMetadata[0] ?? {name: "", shape: []};
      return {
        facts: {
          input: {name: given.name, shape: given.shape.map((side) => (typeof side === "number" ? side : null))},
          outputs: session.outputNames,
          version: ort.env.versions.web,
        },
        upload(parts) {
          for (const feed of feeds) feed[input].dispose();
          feeds = parts.map(({values, shape, dtype}) => ({[input]: new ort.Tensor(dtype, values, shape)}));
        },
        async compute() {
          for (const outputs of results) for (const tensor of Object.values(outputs)) tensor.dispose();
          results = [];
          for (const feed of feeds) results.push(await session.run(feed));
        },
        async download(names) {
          const [outputs] = results;
          return Promise.all(
            names.map(async (name) => ({
              dtype: outputs[name].type,
              shape: outputs[name].dims,
              data: await outputs[name].getData(),
            })),
          );
        },
      };
    },
  };
}
