# The shipping build. Sources are listed once, in native/sources.json. Traps it avoids: docs/building.md.
{
  'variables': {
    'chkpt_sanitize%': '',   # node-gyp rebuild --chkpt_sanitize=address,undefined
    'chkpt_system_libs%': '<!(node -p "process.env.CHKPT_SYSTEM_LIBS === \'1\' ? 1 : 0")',
    'chkpt_strict': ['-Wall', '-Wextra', '-Wshadow', '-Wconversion', '-Werror'],
    'lz4_dir': 'node_modules/lz4-sources/dependencies/lz4/lib',
    'xxhash_dir': 'node_modules/xxhash-sources/xxHash',
  },
  'target_defaults': {
    'include_dirs': ['native'],
    'cflags': ['-fvisibility=hidden'],
    'conditions': [
      ['chkpt_sanitize!=""', {
        'cflags': ['-fsanitize=<(chkpt_sanitize)', '-fno-sanitize-recover=all', '-fno-omit-frame-pointer', '-g'],
        'ldflags': ['-fsanitize=<(chkpt_sanitize)'],
        'defines': ['CHKPT_DEBUG'],
      }],
    ],
  },
  'targets': [
    {
      'target_name': 'chkpt_third_party',
      'direct_dependent_settings': {
        'conditions': [['target_arch=="x64"', {'defines': ['CHKPT_XXH_DISPATCH']}]],
      },
      'conditions': [
        ['chkpt_system_libs==1', {
          'type': 'none',
          'direct_dependent_settings': {'cflags': ['<!@(node -p "process.env.CHKPT_SYSTEM_LIBS === \'1\' ? require(\'child_process\').execSync(\'pkg-config --cflags liblz4 libxxhash\').toString().trim() : \'\'")']},
          'link_settings': {'libraries': ['<!@(node -p "process.env.CHKPT_SYSTEM_LIBS === \'1\' ? require(\'child_process\').execSync(\'pkg-config --libs liblz4 libxxhash\').toString().trim() : \'\'")']},
        }, {
          'type': 'static_library',
          'sources': ['<(lz4_dir)/lz4.c'],
          'defines': ['LZ4LIB_VISIBILITY='],
          'conditions': [['target_arch=="x64"', {'sources': ['<(xxhash_dir)/xxh_x86dispatch.c']}]],
          'direct_dependent_settings': {
            'defines': ['LZ4LIB_VISIBILITY='],
            'include_dirs': ['<(xxhash_dir)', '<(lz4_dir)'],
          },
        }],
      ],
    },
    {
      'target_name': 'chkpt_core',
      'type': 'static_library',
      'sources': ["<!@(node -p \"require('./native/sources.json').core.join('\\n')\")"],
      'dependencies': ['chkpt_third_party'],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20', '-std=gnu++1y'],
      'cflags_cc': ['-std=c++20', '<@(chkpt_strict)'],
    },
    {
      'target_name': 'chkpt',
      'sources': ["<!@(node -p \"require('./native/sources.json').addon.join('\\n')\")"],
      'dependencies': [
        'chkpt_core',
        'chkpt_third_party',
        "<!(node -p \"require('node-addon-api').targets\"):node_addon_api",
      ],
      'defines': [
        'NAPI_VERSION=9',
        'NODE_ADDON_API_DISABLE_DEPRECATED',
        'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
      ],
      'cflags_cc!': ['-std=gnu++17', '-std=gnu++20', '-std=gnu++1y'],
      'cflags_cc': ['-std=c++20', '-Wall', '-Wextra'],
    },
  ],
}
