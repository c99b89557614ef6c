// TFLite files in LiteRT.js.

export async function start({script, provider, threads}) {
  const address = new URL(script, location).href;
  const litert = await import(address);
  const many = threads !== null && threads > 1;
  await litert.loadLiteRt(new URL("../wasm/", address).href, {threads: many});
  return {
    async open({model, signature}) {
      const compiled = await litert.loadAndCompile(`model/${encodeURIComponent(model)}`, {
        accelerator: provider,
        ...(provider === "wasm" && {cpuOptions: {numThreads: threads ?? 1}}),
        ...(provider === "webgpu" && {gpuOptions: {precision: "fp32"}}),  // by itself it may compute in halves
      });
      const runner = signature ? compiled.signatures[signature] : compiled;
      if (!runner) throw new Error(`the file has no signature ${signature}, but ${Object.keys(compiled.signatures).join(", ")}`);
      const [given] = runner.getInputDetails();
      const names = runner.getOutputDetails().map(({name}) => name);
      let feeds = [];
      let results = [];
      return {
        facts: {
          input: {name: given.name, shape: [...given.shape]},
          outputs: names,
          delegated: compiled.isFullyAccelerated,
        },
        upload(parts) {
          for (const tensor of feeds) tensor.delete();
          feeds = parts.map(({values, shape}) => new litert.Tensor(values, shape));
        },
        async compute() {
          for (const tensors of results) for (const tensor of tensors) tensor.delete();
          results = [];
          for (const feed of feeds) {
            const outputs = await runner.run([feed]);
            // A call is over when its answers are there, as everywhere else.
            results.push(provider === "wasm" ? outputs : await Promise.all(outputs.map((each) => each.moveTo("wasm"))));
          }
        },
        async download(wanted) {
          const [outputs] = results;
          return Promise.all(
            wanted.map(async (name) => {
              const tensor = outputs[names.indexOf(name)];
              return {
                dtype: tensor.type.dtype,
                shape: [...tensor.type.layout.dimensions],
                data: await tensor.data(),
              };
            }),
          );
        },
      };
    },
  };
}
